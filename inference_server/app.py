"""The life of one server: listen, load, serve, drain.

Promises that liveness answers from the first moment and readiness only while a model is loaded and no
SIGTERM has come; that after SIGTERM requests go on being answered for `drain_delay` seconds, each answer
closing its connection, so that clients and load balancers move on without an error; that then requests in
flight get `drain_timeout` seconds; and that the process ends. A second SIGTERM skips the delay. What a
failed load looks like is `__main__`'s.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import time
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from inference_server.errors import ListenFailed
from inference_server.files.model_directory import ModelFiles, find_model
from inference_server.host.busy_poll import BusyPoll
from inference_server.host.cgroup import has_whole_cpu, share_of_memory
from inference_server.host.thermal import Thermal
from inference_server.host.watchdog import LoopWatch
from inference_server.http.api import HttpApi
from inference_server.http.connection import HttpConnection
from inference_server.http.peers import Peers
from inference_server.serving.activation import Activation
from inference_server.serving.dataplane import DECODED_BYTES, DataPlane
from inference_server.settings import Settings
from inference_server.telemetry.metrics import Metrics
from inference_server.telemetry.tracing import open_tracer

if TYPE_CHECKING:
    from inference_server.grpc.api import GrpcApi
    from inference_server.serving.repository import ModelRepository
    from inference_server.serving.result_cache import ResultCache

logger = logging.getLogger(__name__)

_BACKLOG = 1024
_SWEEP_SECONDS = 1.0

Result = TypeVar("Result")


def _process_age() -> float:
    """Seconds since this process was started, the interpreter's start included (proc(5), `stat` field 22)."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _bind(host: str, port: int) -> socket.socket:
    """Return a bound socket; for no host one that takes IPv4 and IPv6, or IPv4 where the machine has no IPv6.

    Raises:
        ListenFailed: The address is taken, or not one of this machine.
    """
    try:
        if not host and socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            except OSError as error:
                # Compiled in, and switched off by the administrator.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ListenFailed(f"{host or 'all addresses'}, port {port}: cannot listen: {reason}") from None


def _cache(settings: Settings, metrics: Metrics) -> "ResultCache | None":
    if not settings.cache_bytes:
        return None
    from inference_server.serving.result_cache import ResultCache

    return ResultCache(settings.cache_bytes, settings.cache_ttl, metrics)


class App:
    """One server process.

    Args:
        settings: What to serve and how.

    Raises:
        LoadError: There is no model where the settings say.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        metrics = Metrics(exemplars=settings.exemplars)
        self.dataplane = DataPlane(
            metrics,
            share_of_memory(DECODED_BYTES),
            settings.max_queue_size,
            cache=_cache(settings, metrics),
        )
        self._activation = Activation(self.dataplane, settings)
        self._files: ModelFiles | None = None
        self._repository: ModelRepository | None = None
        if settings.model is not None:
            self._files = find_model(
                settings.model, name=settings.name, version=settings.version, digest=settings.digest
            )
            self.dataplane.announce(self._files.name, self._files.version)
        else:
            self._repository = self._open_repository()
        limit = settings.max_body_bytes
        self._peers = Peers(HttpApi(self.dataplane, limit, self._repository), limit, http2=self._speak_http2)
        self._grpc: GrpcApi | None = None
        self._loop_watch = LoopWatch()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.port = settings.port

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the number of requests that had to be cut off.

        Raises:
            ListenFailed: The address cannot be bound.
            LoadError: The model cannot be served.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        server = await self._listen()
        try:
            if not await self._load():
                return 0  # told to stop before there was anything to serve
            await self._stop.wait()
            return await self._drain(server)
        finally:
            server.close()
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
        for connection in tuple(self._peers.connections):
            connection.move_on()

    def _speak_http2(self, peers: Peers, transport: asyncio.Transport, data: bytes) -> None:
        # Imported with the first client that speaks gRPC: protobuf, HPACK and ours are 4 MB, which others never need.
        from inference_server.grpc.api import GrpcApi
        from inference_server.http2.connection import Http2Connection

        if self._grpc is None:
            self._grpc = GrpcApi(self.dataplane, self._settings.max_body_bytes, self._repository)
        Http2Connection.take_over(self._grpc, peers, transport, data)

    async def _listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        settings = self._settings
        self._tasks.append(loop.create_task(self._sweep()))
        self._loop_watch.start()
        if settings.busy_poll and has_whole_cpu():
            self._peers.answered = BusyPoll(loop, lambda: self.dataplane.idle, settings.busy_poll).answered
        listener = _bind(settings.host, settings.port)
        self.port = listener.getsockname()[1]
        server = await loop.create_server(
            lambda: HttpConnection(self._peers, loop), sock=listener, backlog=_BACKLOG
        )
        logger.info("listening", extra={"fields": {"host": settings.host, "port": self.port}})
        return server

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

            self.dataplane.observer = Observer(None if share is None else RequestLog(share, metrics), tracer)
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

    async def _drain(self, server: asyncio.Server) -> int:
        settings = self._settings
        logger.info(
            "draining",
            extra={
                "fields": {"delay_seconds": settings.drain_delay, "timeout_seconds": settings.drain_timeout}
            },
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), settings.drain_delay)
        server.close()
        deadline = time.monotonic() + settings.drain_timeout
        while time.monotonic() < deadline:
            for connection in tuple(self._peers.connections):
                connection.close_if_idle()
            if not self._peers.connections:
                break
            await asyncio.sleep(0.01)
        left = sum(connection.busy for connection in self._peers.connections)
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
            await asyncio.sleep(_SWEEP_SECONDS)
