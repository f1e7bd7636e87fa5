"""Serves ``/metrics``, ``/healthz`` and ``/readyz``.

``/healthz`` fails when the process must be restarted: its event loop hangs (no answer at all), a worker
died, or the watches have gone blind. ``/readyz`` fails until the process can do its part: acting, or
standing by for the leader.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str | None]
"""Returns what is wrong, None when nothing is."""


class ProbeServer:
    """A small HTTP server; ``port`` holds the port it listens on once started."""

    def __init__(self, registry: CollectorRegistry, *, healthy: Check, ready: Check) -> None:
        self._registry = registry
        self._healthy = healthy
        self._ready = ready
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 picks a free one.

        Raises:
            OSError: the address is taken.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._check(self._healthy))
        app.router.add_get("/readyz", self._check(self._ready))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    def _check(self, check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(_: web.Request) -> web.StreamResponse:
            wrong = check()
            return web.Response(status=503, text=wrong + "\n") if wrong else web.Response(text="ok\n")

        return answer
