"""The whole gateway as its container runs it, and what its processes are."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import edgemodel
from edgemodel.gateway import runtime
from edgemodel.gateway.held import KEEPER_SOCKET
from edgemodel.gateway.keeper import LAUNCH
from tests.gateway.clients import SECONDS, Load, until
from tests.gateway.listeners import sockets_at, sockets_of
from tests.gateway.site import Site


class Whole:
    """The whole gateway as the container runs it: a supervisor, an agent and HAProxy."""

    def __init__(self, site: Site, process: asyncio.subprocess.Process, log: Path) -> None:
        self.site, self.process, self._log = site, process, log
        self.folder = str(site.settings.state_folder)
        self.killed = False

    def kill(self) -> None:
        """Kill all of its processes at once, as the kernel does when process 1 of a container dies."""
        self.killed = True
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def said(self, words: str) -> int:
        return self._log.read_text(encoding="utf-8").count(words)

    def agents(self) -> list[int]:
        """Return the process ids of agents."""
        return [pid for pid in self._children() if b"--agent" in command(pid) and alive(pid)]

    def masters(self) -> list[int]:
        """Return the process ids of master processes of HAProxy that use this state folder."""
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal()
            and command(int(entry.name)).startswith(b"haproxy\0")
            and b"-S\0" + self.folder.encode() in command(int(entry.name))
            and parent(int(entry.name)) in (1, self.process.pid)
            and alive(int(entry.name))
        ]

    def kill_agent(self) -> int:
        [pid] = self.agents()
        os.kill(pid, signal.SIGKILL)
        return pid

    async def worker(self) -> int:
        found = await runtime.process_id(f"{self.folder}/haproxy.sock")
        assert found is not None
        return found

    async def another_agent(self, than: int) -> None:
        """Wait until another agent has taken over, and says so."""
        seen = self.said('"HAProxy runs"')
        await until(lambda: self.agents() not in ([], [than]), "another agent")
        await until(lambda: self.said('"HAProxy runs"') > seen, "it to find HAProxy")

    def _children(self) -> list[int]:
        return children(self.process.pid)


class Keeper:
    """The process that holds HAProxy's sockets in a container of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process, self._log = process, log
        self.killed = False

    def kill(self) -> None:
        self.killed = True
        self.process.kill()

    def said(self, words: str) -> int:
        return self._log.read_text(encoding="utf-8").count(words)

    def has(self, port: int) -> bool:
        """Tell whether it holds every socket that listens at a port, and there is one."""
        found = sockets_at(port)
        return bool(found) and found <= sockets_of(self.process.pid)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def descendants(pid: int) -> list[int]:
    """Return the process ids of all that it started, and of all that these did."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    return 0


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    return False


def resident(pid: int) -> int:
    """Return KiB of memory."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@asynccontextmanager
async def whole(site: Site) -> AsyncIterator[Whole]:
    """Run ``edgemodel gateway``."""
    folder = site.settings.state_folder
    settings, log, token = (folder.parent / f"{folder.name}-{name}" for name in ("settings", "log", "token"))
    settings.write_text(site.settings.model_dump_json(by_alias=True), encoding="utf-8")
    token.write_text("token", encoding="ascii")
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgemodel", "gateway", "--settings", str(settings)),
            *("--api-server", site.server.url, "--token-file", str(token)),
            stderr=out,
        )
    gateway = Whole(site, process, log)
    try:
        yield gateway
    finally:
        # One that is dead would be reaped by it, before asyncio learns of its code.
        if process.returncode is None and not gateway.killed:
            process.terminate()
        code = await asyncio.wait_for(process.wait(), SECONDS)
        print(log.read_text(encoding="utf-8"))
        for file in (settings, log, token):
            file.unlink()
    assert code == (-signal.SIGKILL if gateway.killed else 0)


@asynccontextmanager
async def keeper(folder: Path) -> AsyncIterator[Keeper]:
    """Run the keeper as the chart does."""
    program = Path(edgemodel.__file__).parent.parent
    log = folder.parent / f"{folder.name}-keeper-log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-P", "-c", LAUNCH, str(folder)),
            env={**os.environ, "PYTHONPATH": str(program)},
            stderr=out,
        )
    found = Keeper(process, log)
    try:
        await until((folder / KEEPER_SOCKET).exists, "the keeper")
        yield found
    finally:
        if process.returncode is None and not found.killed:
            process.terminate()
        code = await asyncio.wait_for(process.wait(), SECONDS)
        print(log.read_text(encoding="utf-8"))
        log.unlink()
    assert code == (-signal.SIGKILL if found.killed else 0)


async def more(load: Load, requests: int = 100) -> None:
    total = load.total
    await until(lambda: load.total >= total + requests, "more requests")
