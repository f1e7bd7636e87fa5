"""HAProxy as the agent sees it: found by its sockets, whoever started it, and given new configurations without a gap.

The supervisor starts it, and starts it again. The master process reads the configuration anew on ``reload`` and starts a new
worker; listeners pass from worker to worker, the old one ends its requests. Promises: a configuration is tried
(``haproxy -c``) before it is put in place; the one before is what a start falls back to; a reload that does not take is an
error, and the old worker goes on. What HAProxy has is only said to be known where no agent died while it changed that.
"""

import asyncio
import contextlib
import logging
import os
import re
import select
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemodel.errors import Refused, Transient
from edgemodel.gateway import runtime, state
from edgemodel.gateway.configuration import Place

log = logging.getLogger(__name__)

BINARY = "haproxy"
START_SECONDS = 10.0
RETURN_SECONDS = 5.0
"""How long one that ended may take to be back, before another configuration is tried."""
CHECK_SECONDS = 20.0
SILENT_SECONDS = 120.0
"""One that says nothing for so long is killed."""
_LOOK = 0.02
ASK_SECONDS = 10.0
"""Between two looks whether it says something."""
_BIND = re.compile(r"^    bind \S*:(\d+)(?: |$)", re.MULTILINE)
_FAILED = re.compile(r"\[failed: (\d+)\]")
_TELLING = "telling"
"""This file is there while HAProxy's pods and weights may not be those of its files."""


class HAProxy:
    """One master process and its workers.

    Args:
        place: its folders and ports.
        binary: what checks configurations.
        changed: called when one was found, and when it has ended.
    """

    def __init__(
        self, place: Place, *, binary: str = BINARY, changed: Callable[[], None] = lambda: None
    ) -> None:
        self.place = place
        self._binary = binary
        self._changed = changed
        self._state = place.sockets
        self._process = -1
        """Of the master process, a file descriptor that can be read once it has ended (pidfd_open(2))."""
        self.master: int | None = None
        """Process id of the master process; None while it does not run."""
        self.started = asyncio.Event()
        """Set while the master process is known to run."""
        self.starts = 0
        """How many were seen."""
        self.reloads = 0
        """How often it took a new configuration."""

    @property
    def alive(self) -> bool:
        """The master process runs."""
        process = self._process
        return process >= 0 and not select.select([process], [], [], 0)[0]

    async def follow(self) -> None:
        """Know of its starts and ends, for ever."""
        while True:
            await self._find()
            try:
                await self._end()
            finally:
                process, self._process, self.master = self._process, -1, None
                os.close(process)
                self.started.clear()
            log.error("HAProxy ended")
            self._changed()

    async def _find(self) -> None:
        while True:
            workers = await self._workers()
            answers = await runtime.process_id(self.place.runtime_socket) if workers is not None else None
            if workers is not None and workers.master is not None and answers in workers.now:
                with contextlib.suppress(ProcessLookupError):
                    self._process = os.pidfd_open(workers.master)
                    break
            await asyncio.sleep(_LOOK)
        self.master = workers.master
        self.starts += 1
        log.info("HAProxy runs", extra={"pid": self.master})
        self._changed()
        self.started.set()

    async def _end(self) -> None:
        """Wait until it ends; have it end when it is silent for too long."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        heard = loop.time()
        loop.add_reader(self._process, ended.set)
        try:
            while True:
                try:
                    async with asyncio.timeout(ASK_SECONDS):
                        await ended.wait()
                except TimeoutError:
                    if await runtime.process_id(self.place.runtime_socket) is not None:
                        heard = loop.time()
                else:
                    return
                if loop.time() - heard >= SILENT_SECONDS:
                    log.error("HAProxy says nothing any more and is killed", extra={"pid": self.master})
                    signal.pidfd_send_signal(self._process, signal.SIGKILL)
        finally:
            loop.remove_reader(self._process)

    async def comes(self) -> bool:
        """Wait for one to run, if the supervisor has a configuration to start it with."""
        if self.alive:
            return True
        if not await asyncio.to_thread(self._startable):
            return False
        try:
            async with asyncio.timeout(RETURN_SECONDS):
                await self.started.wait()
        except TimeoutError:
            return False
        return self.alive

    def _startable(self) -> bool:
        return any(self._set(link) is not None for link in (state.GOOD, state.NOW))

    async def check(self, files: Mapping[str, str]) -> None:
        """Have HAProxy read a configuration, without using it.

        Raises:
            Refused: it would not take it; the message is HAProxy's.
        """
        trial = Path(self._state, "trial")
        shutil.rmtree(trial, ignore_errors=True)
        # What is named by the place it will have is looked for in the trial's folder.
        await asyncio.to_thread(
            _write,
            trial,
            {name: text.replace(f"{self.place.folder}/", f"{trial}/") for name, text in files.items()},
        )
        code, said = await self._run("-c", "-f", str(trial / "haproxy.cfg"))
        if code != 0:
            told = said.replace(f"{trial}/", "")[-2000:].strip()
            raise Refused("GatewayFailed", f"HAProxy does not take the configuration: {told or code}")

    async def use(self, files: Mapping[str, str]) -> None:
        """Put a checked configuration in place and have it taken, without a gap.

        Raises:
            Transient: it did not take; what ran goes on running, and a start begins with what was good before.
        """
        name = await asyncio.to_thread(self._write, files)
        now, good = state.led_to(self._state, state.NOW), state.led_to(self._state, state.GOOD)
        master = self.master if self.alive else None
        state.lead(self._state, state.NOW, name)
        try:
            if master is None:
                # With nothing that was good before, the supervisor starts from this one.
                state.lead(self._state, state.GOOD, None)
                await self._appear()
            if master is not None or now or good:
                await self._reload()
            self._still(master or self.master, name)
        except Transient:
            state.lead(self._state, state.NOW, good or now)
            state.lead(self._state, state.GOOD, good)
            await asyncio.to_thread(state.remove_all_but, self._state, (now, good))
            raise
        state.lead(self._state, state.GOOD, name)
        self.trust()
        await asyncio.to_thread(state.remove_all_but, self._state, (name,))

    def remember(self, files: Mapping[str, str]) -> None:
        """Write down what runs: HAProxy's next worker, and the next start, begin from it."""
        name = self._write(files)
        state.lead(self._state, state.NOW, name)
        state.lead(self._state, state.GOOD, name)
        state.remove_all_but(self._state, (name,))

    def known(self) -> dict[str, str] | None:
        """Return the files of which it is certain that HAProxy does what they say; None if it is not."""
        now, good = state.led_to(self._state, state.NOW), state.led_to(self._state, state.GOOD)
        if not self.alive or now != good or Path(self._state, _TELLING).exists():
            return None
        return self._set(state.GOOD)

    def ports(self) -> set[int]:
        """Return the ports at which it may listen already."""
        texts = [found["haproxy.cfg"] for link in (state.GOOD, state.NOW) if (found := self._set(link))]
        return {int(port) for text in texts for port in _BIND.findall(text)} if self.alive else set()

    def doubt(self) -> None:
        """Note that what HAProxy is told from now on is not in its files yet."""
        Path(self._state, _TELLING).touch()

    def trust(self) -> None:
        """Note that its files say what it does. Not of one that has ended: the next may have read them meanwhile."""
        if self.alive:
            Path(self._state, _TELLING).unlink(missing_ok=True)

    def _still(self, master: int | None, name: str) -> None:
        """Make sure that no other one was started meanwhile: from what was good before, or from the one and the other."""
        if not self.alive or master != self.master or state.led_to(self._state, state.NOW) != name:
            raise Transient("GatewayFailed", "HAProxy ended while it took a new configuration")

    def _set(self, link: str) -> dict[str, str] | None:
        name = state.led_to(self._state, link)
        try:
            return state.read(self._state, name) if name is not None else None
        except ValueError:
            return None

    def _write(self, files: Mapping[str, str]) -> str:
        try:
            return state.write(self._state, files)
        except OSError as error:
            message = f"the configuration cannot be written to {self._state} ({error.strerror})"
            raise Transient("GatewayFailed", message) from None

    async def _appear(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.started.wait()
        except TimeoutError:
            message = "HAProxy does not start; its own lines above say why"
            raise Transient("GatewayFailed", message) from None

    async def _reload(self) -> None:
        before = await self._workers()
        if before is None:
            raise Transient("GatewayFailed", "HAProxy's master process does not answer")
        try:
            await runtime.ask(self.place.master_socket, "reload")
        except runtime.CommandRefused as error:
            log.debug("the master process leaves this unanswered as it begins anew: %s", error.message)
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
    master: int | None
    now: tuple[int, ...]
    leaving: tuple[int, ...]
    failed: bool
    """The last reload did not take."""


def _read_workers(text: str) -> _Workers:
    """Read the answer to ``show proc`` (Management Guide 2.6, section 9.4)."""
    parts: dict[str, list[int]] = {"": [], "workers": [], "old workers": []}
    part, failed, master = "", False, None
    for line in text.splitlines():
        if line.startswith("# "):
            part = line[2:].strip()
        elif (number := line.split(maxsplit=1)[:1]) and number[0].isdecimal():
            parts.setdefault(part, []).append(int(number[0]))
            master = int(number[0]) if line.split()[1:2] == ["master"] else master
            failures = _FAILED.search(line) if part == "" else None
            failed = failed or (failures is not None and failures[1] != "0")
    return _Workers(master, tuple(parts["workers"]), tuple(parts["old workers"]), failed)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(mode=0o700)
    for name, text in files.items():
        with os.fdopen(
            os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
