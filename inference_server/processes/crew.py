"""The further processes of a server, as the first one has them: started, looked after, started again, told to drain.

Promises that a connection which the kernel put in the queue of a process's socket is answered though the process dies: the
first process holds every socket, and accepts from a dead one's until the next process has taken it over. Only requests that
the dead process had read are lost. What died is started again, later each time it ends soon; meanwhile the others go on.
Signals are for the first process alone: the others do what it says over the socket that connects them, and end when it does.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from inference_server.processes.job import Job
from inference_server.processes.link import READY, STOP
from inference_server.processes.pulse import Pulse
from inference_server.processes.shares import restart_delay
from inference_server.telemetry.board import Board

logger = logging.getLogger(__name__)

_STEADY_SECONDS = 60.0
"""A process that served for so long has not failed to start: the next one comes as after a first end."""
_START_SECONDS = 600.0
"""A process that is not ready by then will never be. The largest models take minutes on a slow disk."""


@dataclass(eq=False, slots=True)
class _Member:
    """One further process, as long as it lives."""

    row: int
    process: Process
    writer: asyncio.StreamWriter
    pulse: Pulse
    started: float
    served_since: float | None = None


@dataclass(slots=True)
class _Place:
    """What outlives a process: its socket, and who accepts from it while there is none."""

    row: int
    listener: socket.socket | None = None
    listens: bool = False
    stand_in: asyncio.Server | None = None
    ends: int = 0  # in a row


@dataclass(slots=True)
class Crew:
    """All processes but the first.

    Args:
        board: Where all of them count.
        processes: How many there are to be, with the first.
        job: Makes a process's job, given its row and the descriptor of its socket.
        bind: Makes a socket at the server's port that does not listen yet.
        serve: Accepts connections from a socket in this process.
        program: What is started, with a descriptor of its end of the socket as last argument.
    """

    board: Board
    processes: int
    job: Callable[[int, int], Job]
    bind: Callable[[], socket.socket]
    serve: Callable[[socket.socket], Awaitable[asyncio.Server]]
    program: Sequence[str] = (sys.executable, "-m", "inference_server.worker")
    _members: dict[int, _Member] = field(default_factory=dict)
    _places: list[_Place] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _cut_off: int = 0

    def start(self) -> None:
        """Start them, and look after them from now on."""
        for row in range(1, self.processes):
            place = _Place(row)
            self._places.append(place)
            self._tasks.append(asyncio.get_running_loop().create_task(self._keep(place)))

    @property
    def serving(self) -> int:
        """Processes that serve now, the first one included."""
        return 1 + sum(member.served_since is not None for member in self._members.values())

    def stop(self) -> None:
        """Have all of them drain; the second call ends their delay."""
        self._stop.set()
        for member in self._members.values():
            member.writer.write(STOP)

    def look(self) -> None:
        """End a process that is stuck, or does not become ready; call it once a second."""
        if self._stop.is_set():
            return
        now = asyncio.get_running_loop().time()
        for member in self._members.values():
            alive = member.pulse.alive()
            if alive and (member.served_since is not None or now - member.started < _START_SECONDS):
                continue
            logger.critical(
                "process is stuck; ending it" if not alive else "process does not become ready; ending it",
                extra={"fields": {"process": member.row, "pid": member.process.pid}},
            )
            with contextlib.suppress(ProcessLookupError):
                member.process.kill()

    def close_listeners(self) -> None:
        """Accept no connection any more in the place of others; they close their own sockets themselves."""
        for place in self._places:
            if place.stand_in is not None:
                place.stand_in.close()
            if place.listener is not None:
                place.listener.close()

    async def ended(self, seconds: float) -> int:
        """Wait until all have drained, for so long at most; return the number of requests that they had to cut off."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        return self._cut_off

    def abandon(self) -> None:
        """End what is left of them at once."""
        self._stop.set()
        for member in self._members.values():
            with contextlib.suppress(ProcessLookupError):
                member.process.kill()
        for task in self._tasks:
            task.cancel()
        self.close_listeners()

    async def _keep(self, place: _Place) -> None:
        """Have a process in this place until the server ends."""
        while not self._stop.is_set():
            try:
                told = await self._live(place)
            except OSError as error:  # too many open files or processes, no memory
                told = f"could not be started: {error.strerror or error}"
            self.board.ended(place.row)
            if place.listens and place.stand_in is None and place.listener is not None:
                with contextlib.suppress(OSError):  # its descriptor is closed at the end of a drain
                    place.stand_in = await self.serve(place.listener)
            if self._stop.is_set():
                return
            place.ends += 1
            delay = restart_delay(place.ends)
            logger.warning(
                "process ended; the others serve on",
                extra={
                    "fields": {
                        "process": place.row,
                        "ended": told,
                        "processes_serving": self.serving,
                        "processes": self.processes,
                        "started_again_in_seconds": delay,
                    }
                },
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)

    async def _live(self, place: _Place) -> str:
        """Start a process and return, once it has ended, how it ended.

        Raises:
            OSError: It cannot be started.
        """
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                if place.listener is None:
                    place.listener = self.bind()
                listener = place.listener.fileno()
                process = await asyncio.create_subprocess_exec(
                    *self.program,
                    str(theirs.fileno()),
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(), listener, self.board.fd),
                )
            except OSError:
                ours.close()
                raise
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        member = _Member(place.row, process, writer, Pulse(self.board, place.row), loop.time())
        self._members[place.row] = member
        try:
            writer.write(self.job(place.row, listener).encoded())
            if self._stop.is_set():
                writer.write(STOP)
            with contextlib.suppress(ConnectionError):
                async for line in reader:
                    self._told(place, member, line)
            return how(await process.wait())
        finally:
            del self._members[place.row]
            writer.close()
            if member.served_since is not None and loop.time() - member.served_since >= _STEADY_SECONDS:
                place.ends = 0

    def _told(self, place: _Place, member: _Member, line: bytes) -> None:
        """Hear what a process says of itself."""
        if line != READY:
            if line.endswith(b"\n"):  # else it died while it said so
                self._cut_off += int(line.split()[1])
            return
        member.served_since = asyncio.get_running_loop().time()
        place.listens = True
        if place.stand_in is not None:
            # Both accept from the same queue at the moment: nothing in it is lost.
            place.stand_in.close()
            place.stand_in = None
        logger.info(
            "all processes serve" if self.serving == self.processes else "process serves",
            extra={
                "fields": {
                    "process": member.row,
                    "pid": member.process.pid,
                    "processes_serving": self.serving,
                    "processes": self.processes,
                }
            },
        )


def how(code: int) -> str:
    """Return in words how a process ended."""
    if code < 0:
        return f"signal {-code} ({signal.strsignal(-code)})"
    return f"exit code {code}"
