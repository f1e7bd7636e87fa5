"""HAProxy's process: started, given a new configuration without a gap, started again when it dies.

The master process reads the configuration anew on SIGUSR2 and starts a new worker; listeners pass from worker to worker, the
old one ends its requests. Promises: a configuration is tried (``haproxy -c``) before it is put in place; the one before
stays in ``good/`` and is what a start falls back to; a reload that does not take is an error, and the old worker goes on.
"""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemodel.errors import Refused, Transient
from edgemodel.gateway import runtime
from edgemodel.gateway.configuration import Place

log = logging.getLogger(__name__)

BINARY = "haproxy"
START_SECONDS = 10.0
CHECK_SECONDS = 20.0
_LOOK = 0.02
_FAILED = re.compile(r"\[failed: (\d+)\]")
_CHANGING = ("tokens-*.lst", "authorities-*.pem", "tls.pem", "certificates.list")
"""Files that not every configuration has."""


class HAProxy:
    """One master process and its workers.

    Args:
        place: its folder and ports.
        binary: what to run.
    """

    def __init__(self, place: Place, *, binary: str = BINARY) -> None:
        self.place = place
        self._binary = binary
        self._folder = Path(place.folder)
        self._process: asyncio.subprocess.Process | None = None
        self.started = asyncio.Event()
        """Set while the master process is thought to run."""
        self.starts = 0
        """How often it was started."""
        self.reloads = 0
        """How often it took a new configuration."""

    @property
    def alive(self) -> bool:
        """The master process runs."""
        return self._process is not None and self._process.returncode is None

    async def check(self, files: Mapping[str, str]) -> None:
        """Have HAProxy read a configuration, without using it.

        Raises:
            Refused: it would not take it; the message is HAProxy's.
        """
        trial = self._folder / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        # What is named by the place it will have is looked for in the trial's folder.
        await asyncio.to_thread(
            _write,
            trial,
            {name: text.replace(f"{self._folder}/", f"{trial}/") for name, text in files.items()},
        )
        code, said = await self._run("-c", "-f", str(trial / "haproxy.cfg"))
        if code != 0:
            told = said.replace(f"{trial}/", "")[-2000:].strip()
            raise Refused("GatewayFailed", f"HAProxy does not take the configuration: {told or code}")

    async def use(self, files: Mapping[str, str]) -> None:
        """Put a checked configuration in place and have it taken, without a gap.

        Raises:
            Transient: it did not take; what ran goes on running, and the files on disk are the old ones again.
        """
        before = _read(self._folder, files)
        _write(self._folder, files)
        try:
            if self.alive:
                await self._reload()
            else:
                await self._start()
        except Transient:
            _write(self._folder, before)
            raise
        self.remember(files)
        for folder in (self._folder, self._folder / "good"):
            for old in (path for pattern in _CHANGING for path in folder.glob(pattern)):
                if old.name not in files:
                    old.unlink(missing_ok=True)

    def remember(self, files: Mapping[str, str]) -> None:
        """Write down what runs: HAProxy's next worker, and the next start, begin from it."""
        _write(self._folder, files)
        _write(self._folder / "good", files)

    def last_good(self) -> dict[str, str] | None:
        """Return the files of the last configuration that was taken, by whichever process; None if there is none."""
        found = {path.name: path.read_text(encoding="utf-8") for path in (self._folder / "good").glob("*.*")}
        return found if "haproxy.cfg" in found else None

    async def wait(self) -> int:
        """Return the exit code when the master process ends."""
        assert self._process is not None
        code = await self._process.wait()
        self.started.clear()
        return code

    async def stop(self, seconds: float = 30.0) -> None:
        """End it when its requests have ended, or when ``seconds`` are over."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def _start(self) -> None:
        for name in ("haproxy.sock", "master.sock"):
            (self._folder / name).unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *(self._binary, "-W", "-db", "-S", f"{self.place.master_socket},mode,600"),
            *("-f", str(self._folder / "haproxy.cfg")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=None,
            start_new_session=True,
        )
        self.starts += 1
        if not await self._answers(frozenset()):
            await self.kill()
            raise Transient("GatewayFailed", "HAProxy does not start; its own lines above say why")
        self.started.set()
        log.info("HAProxy started", extra={"pid": self._process.pid})

    async def _reload(self) -> None:
        assert self._process is not None
        before = await self._workers()
        if before is None:
            raise Transient("GatewayFailed", "HAProxy's master process does not answer")
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR2)
        if not await self._answers(frozenset(before.now)):
            raise Transient(
                "GatewayFailed",
                "HAProxy does not take a new configuration, its own lines above say why; the old worker goes on",
            )
        self.reloads += 1

    async def leaving(self) -> tuple[int, ...]:
        """Return the process ids of workers of before a reload that still end their requests."""
        workers = await self._workers() if self.alive else None
        return workers.leaving if workers is not None else ()

    async def _answers(self, before: frozenset[int]) -> bool:
        """Wait until another worker than those answers."""
        end = asyncio.get_running_loop().time() + START_SECONDS
        while asyncio.get_running_loop().time() < end and self.alive:
            workers = await self._workers()
            # The master tells of a failed try while the worker of before goes on.
            if workers is not None and workers.failed:
                return False
            if workers is not None and workers.now and not before & set(workers.now):
                # It listens by now; what is asked of it waits until it runs.
                return await runtime.process_id(self.place.runtime_socket) in workers.now
            await asyncio.sleep(_LOOK)
        return False

    async def _workers(self) -> "_Workers | None":
        try:
            return _read_workers(await runtime.ask(self.place.master_socket, "show proc"))
        except runtime.CommandRefused:
            return None

    async def _run(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(self._binary, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return -1, f"no end of the check after {CHECK_SECONDS:g} s"
        return process.returncode or 0, said.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Workers:
    now: tuple[int, ...]
    leaving: tuple[int, ...]
    failed: bool
    """The last reload did not take."""


def _read_workers(text: str) -> _Workers:
    """Read the answer to ``show proc`` (Management Guide 2.6, section 9.4)."""
    parts: dict[str, list[int]] = {"": [], "workers": [], "old workers": []}
    part, failed = "", False
    for line in text.splitlines():
        if line.startswith("# "):
            part = line[2:].strip()
        elif (number := line.split(maxsplit=1)[:1]) and number[0].isdecimal():
            parts.setdefault(part, []).append(int(number[0]))
            failures = _FAILED.search(line) if part == "" else None
            failed = failed or (failures is not None and failures[1] != "0")
    return _Workers(tuple(parts["workers"]), tuple(parts["old workers"]), failed)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        new = folder / f".{name}.new"
        new.unlink(missing_ok=True)
        with os.fdopen(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
        new.replace(folder / name)


def _read(folder: Path, names: Mapping[str, str]) -> dict[str, str]:
    return {name: (folder / name).read_text(encoding="utf-8") for name in names if (folder / name).exists()}
