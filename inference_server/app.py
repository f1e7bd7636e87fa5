"""The life of one server: listen, load, serve, drain.

Promises that liveness answers from the first moment and readiness only while a model is loaded and no
SIGTERM has come; that after SIGTERM requests go on being answered for `drain_delay` seconds, each answer
closing its connection, so that clients and load balancers move on without an error; that then requests in
flight get `drain_timeout` seconds; and that the process ends. A second SIGTERM skips the delay. What a
failed load looks like is `__main__`'s.

Where several processes serve, this is the life of the first. It listens, loads, measures and judges, and then has the
others started (`processes.crew`); theirs is `member`.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from inference_server.engine.plan import Plan
from inference_server.files.model_directory import ModelFiles, find_model
from inference_server.host.busy_poll import BusyPoll
from inference_server.host.cgroup import memory_bytes, share_of_memory, whole_cpus
from inference_server.host.listening import bind_beside, listen
from inference_server.host.resident import resident_bytes
from inference_server.host.thermal import Thermal
from inference_server.host.watchdog import LoopWatch
from inference_server.http.api import HttpApi
from inference_server.http.connection import HttpConnection
from inference_server.http.peers import Peers
from inference_server.serving.activation import Activation, Known
from inference_server.serving.dataplane import DECODED_BYTES, DataPlane
from inference_server.settings import Settings
from inference_server.telemetry.metrics import Metrics
from inference_server.telemetry.tracing import open_tracer

if TYPE_CHECKING:
    from inference_server.grpc.api import GrpcApi
    from inference_server.processes.crew import Crew
    from inference_server.serving.repository import ModelRepository
    from inference_server.serving.result_cache import ResultCache
    from inference_server.telemetry.board import Board

logger = logging.getLogger(__name__)

_BACKLOG = 1024
_SWEEP_SECONDS = 1.0
_MARGIN_SECONDS = 2.0
"""Beyond what a drain takes, for other processes to end in."""

Result = TypeVar("Result")


def _process_age() -> float:
    """Seconds since this process was started, the interpreter's start included (proc(5), `stat` field 22)."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _cache(settings: Settings, metrics: Metrics) -> "ResultCache | None":
    if not settings.cache_bytes:
        return None
    from inference_server.serving.result_cache import ResultCache

    return ResultCache(settings.cache_bytes, settings.cache_ttl, metrics)


def _board(settings: Settings) -> "Board | None":
    """Return where several processes count; None where there will be no second one."""
    rows = whole_cpus() if settings.processes is None else settings.processes
    if rows <= 1 or settings.model is None:
        return None
    from inference_server.telemetry.board import Board

    return Board(rows)


class App:
    """One server, or the first process of one.

    Args:
        settings: What to serve and how.
        board: Where several processes count; None where this one is alone, or makes it.
        known: What needs no finding out about the model; None for nothing.

    Raises:
        LoadError: There is no model where the settings say.
    """

    def __init__(self, settings: Settings, board: "Board | None" = None, known: Known | None = None) -> None:
        self._settings = settings
        self._board = board = board or _board(settings)
        metrics = Metrics(exemplars=settings.exemplars, board=board)
        self.dataplane = DataPlane(
            metrics,
            share_of_memory(DECODED_BYTES),
            settings.max_queue_size,
            cache=_cache(settings, metrics),
        )
        self._known = known
        self._activation = Activation(self.dataplane, settings, known, self._settle)
        self._files: ModelFiles | None = None
        self._repository: ModelRepository | None = None
        if settings.model is None:
            self._repository = self._open_repository()
        else:
            self._files = self._find(settings.model)
            self.dataplane.announce(self._files.name, self._files.version)
        limit = settings.max_body_bytes
        self._peers = Peers(HttpApi(self.dataplane, limit, self._repository), limit, http2=self._speak_http2)
        self._grpc: GrpcApi | None = None
        self._loop_watch = LoopWatch()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None
        self._crew: Crew | None = None
        self.port = settings.port

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the number of requests that had to be cut off.

        Raises:
            ListenFailed: The address cannot be bound.
            LoadError: The model cannot be served.
        """
        self._obey()
        self._tasks.append(asyncio.get_running_loop().create_task(self._sweep()))
        self._loop_watch.start()
        try:
            if not await self._begin():
                return 0  # told to stop before there was anything to serve
            await self._stop.wait()
            return await self._drain()
        finally:
            if self._server is not None:
                self._server.close()
            if self._crew is not None:
                self._crew.abandon()
            for connection in tuple(self._peers.connections):
                connection.abort()
            self._loop_watch.stop()
            for task in self._tasks:
                task.cancel()
            if self._repository is not None:
                await self._repository.close()
            await self.dataplane.close()
            if self.dataplane.observer is not None:
                await asyncio.to_thread(self.dataplane.observer.close)

    def stop(self) -> None:
        """Begin to drain; the second call ends the delay."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()
        self.dataplane.draining = True
        self._peers.closing = True
        if self._crew is not None:
            self._crew.stop()
        for connection in tuple(self._peers.connections):
            connection.move_on()

    def _speak_http2(self, peers: Peers, transport: asyncio.Transport, data: bytes) -> None:
        # Imported with the first client that speaks gRPC: protobuf, HPACK and ours are 4 MB, which others never need.
        from inference_server.grpc.api import GrpcApi
        from inference_server.http2.connection import Http2Connection

        if self._grpc is None:
            self._grpc = GrpcApi(self.dataplane, self._settings.max_body_bytes, self._repository)
        Http2Connection.take_over(self._grpc, peers, transport, data)

    def _find(self, model: Path) -> ModelFiles:
        settings = self._settings
        return find_model(model, name=settings.name, version=settings.version, digest=settings.digest)

    def _obey(self) -> None:
        """Begin to do what whoever started this process says."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    async def _begin(self) -> bool:
        """Listen, load, and have other processes do so; return whether that came to its end before a stop."""
        settings = self._settings
        listener = listen(settings.host, settings.port, shared=self._board is not None)
        self.port = listener.getsockname()[1]
        self._server = await self._accept(listener)
        logger.info("listening", extra={"fields": {"host": settings.host, "port": self.port}})
        if not await self._load():
            return False
        if self._board is not None and self._known is not None and self._known.plan.processes > 1:
            self._crew = self._open_crew(self._board, self._known, listener)
            self._crew.start()
        return True

    async def _accept(self, listener: socket.socket) -> asyncio.Server:
        """Answer what comes in by a socket, beside what comes in by others."""
        loop, settings = asyncio.get_running_loop(), self._settings
        if settings.busy_poll and whole_cpus() >= (settings.processes or 1):
            self._peers.answered = BusyPoll(loop, lambda: self.dataplane.idle, settings.busy_poll).answered
        return await loop.create_server(
            lambda: HttpConnection(self._peers, loop), sock=listener, backlog=_BACKLOG
        )

    def _settle(self, known: Known) -> Plan:
        """Decide how many processes serve the model, and keep to this one's part of what the server may take."""
        processes = self._settings.processes
        if self._board is None:
            return known.plan
        if processes is None:
            from inference_server.processes.shares import processes_that_pay

            processes = processes_that_pay(
                inline=known.plan.inline,
                cpus=self._board.rows,
                resident=resident_bytes(),
                memory=memory_bytes(),
            )
        plan = replace(known.plan, processes=processes)
        self._known = replace(known, plan=plan)
        self.dataplane.divide(processes)
        self._peers.divide(processes)
        return plan

    def _open_crew(self, board: "Board", known: Known, listener: socket.socket) -> "Crew":
        from inference_server.processes.crew import Crew
        from inference_server.processes.job import Job, stamp_of

        files = self._files
        assert files is not None  # a repository has no crew
        stamp = stamp_of(files)

        def job(row: int, descriptor: int) -> Job:
            return Job(
                self._settings, files, stamp, known, row, board.rows, board.fd, descriptor, os.getpid()
            )

        return Crew(
            board,
            known.plan.processes,
            job,
            lambda: bind_beside(listener),
            lambda beside: self._accept(beside.dup()),
        )

    async def _load(self) -> bool:
        """Load what there is to serve; return whether that came to its end before a stop."""
        self._observe()
        if self._files is not None:
            told = await self._unless_stopped(asyncio.ensure_future(self._activation.activate(self._files)))
        else:
            assert self._repository is not None
            told = await self._unless_stopped(asyncio.ensure_future(self._repository.start()))
            self.dataplane.unloaded = self._repository
        if told is None:
            return False
        self.dataplane.metrics.processes.set(1)
        logger.info("ready", extra={"fields": {**told, "start_seconds": round(_process_age(), 2)}})
        return True

    def _open_repository(self) -> "ModelRepository":
        from inference_server.serving.repository import ModelRepository

        settings = self._settings
        assert settings.model_repository is not None  # read_settings sees to that
        return ModelRepository(
            settings.model_repository,
            self.dataplane,
            self._activation.activate,
            settings.repository_memory_bytes,
        )

    def _observe(self) -> None:
        """Begin what is told of requests and of the machine; after the socket listens: some of it takes a moment."""
        share, metrics = self._settings.request_log, self.dataplane.metrics
        tracer = open_tracer(os.environ)
        if share is not None or tracer is not None:
            from inference_server.telemetry.observer import Observer
            from inference_server.telemetry.request_log import RequestLog

            writers = 1 if self._board is None else self._board.rows
            log = None if share is None else RequestLog(share, metrics, processes=writers)
            self.dataplane.observer = Observer(log, tracer)
        thermal = Thermal(metrics)
        if thermal.present:
            self._tasks.append(
                asyncio.get_running_loop().create_task(thermal.follow(self.dataplane.slow_down))
            )

    async def _unless_stopped(self, future: "asyncio.Future[Result]") -> "Result | None":
        """Return what comes of it; None when the process is told to stop before that."""
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((future, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not future.done():
            future.cancel()
            return None
        return future.result()

    async def _drain(self) -> int:
        settings = self._settings
        logger.info(
            "draining",
            extra={
                "fields": {"delay_seconds": settings.drain_delay, "timeout_seconds": settings.drain_timeout}
            },
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), settings.drain_delay)
        # Turns of the loop in which it accepts and reads what waits: closing would reset it.
        for _ in range(3):
            await asyncio.sleep(0)
        if self._server is not None:
            self._server.close()
        if self._crew is not None:
            self._crew.close_listeners()
        deadline = time.monotonic() + settings.drain_timeout
        while time.monotonic() < deadline:
            for connection in tuple(self._peers.connections):
                connection.close_if_idle()
            if not self._peers.connections:
                break
            await asyncio.sleep(0.01)
        left = sum(connection.busy for connection in self._peers.connections)
        if self._crew is not None:
            left += await self._crew.ended(deadline + _MARGIN_SECONDS - time.monotonic())
        logger.log(
            logging.WARNING if left else logging.INFO, "stopped", extra={"fields": {"requests_cut_off": left}}
        )
        return left

    async def _sweep(self) -> None:
        """Keep the Date header fresh and cut off peers that take too long."""
        loop = asyncio.get_running_loop()
        while True:
            self._peers.date = formatdate(usegmt=True).encode("ascii")
            now = loop.time()
            for connection in tuple(self._peers.connections):
                if connection.overdue(now):
                    connection.abort()
            self._loop_watch.beat()
            self.dataplane.watchdog.look(self.dataplane.slots)
            if self._board is not None:
                self._board.beat(stuck=not self.dataplane.watchdog.alive)
                self._look_at_others()
            await asyncio.sleep(_SWEEP_SECONDS)

    def _look_at_others(self) -> None:
        """See to the server's other processes, once a second."""
        if self._crew is not None:
            self._crew.look()
