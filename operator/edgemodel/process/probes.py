"""Serves ``/metrics``, ``/healthz`` and ``/readyz`` of a process without a web server of its own: HTTP/1.1 in fifty lines.

aiohttp would take as much memory as everything else here does together, and http.server a thread for each connection.
Promises: a client gets five seconds and 8 KiB for its request; at most 16 are served at a time; one answer a connection.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str | None]
"""Returns what is wrong, None when nothing is."""
Asking = Callable[[], Awaitable[str | None]]
"""The same, where finding out takes a while: some four seconds at most."""

_SECONDS = 5.0
_AT_ONCE = 16
_TEXT = "text/plain; charset=utf-8"


class ProbeServer:
    """``port`` holds the port it listens on once started; ``more`` are paths besides the usual ones."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        healthy: Check,
        ready: Check,
        more: Mapping[str, Asking] | None = None,
    ) -> None:
        self._registry = registry
        self._more = dict(more or {})
        self._checks = {"/healthz": healthy, "/readyz": ready}
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 picks a free one.

        Raises:
            OSError: the address is taken.
        """
        self._server = await asyncio.start_server(self._accept, host, port, limit=8192)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._serving) >= _AT_ONCE:
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = await self._answer(head.split(b"\r\n", 1)[0].split(b" "))
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # the client's own fault, and its loss
        finally:
            writer.close()

    async def _answer(self, line: list[bytes]) -> tuple[str, str, bytes]:
        if len(line) != 3 or line[0] != b"GET":
            return "405 Method Not Allowed", _TEXT, b"GET is what there is\n"
        path = line[1].split(b"?", 1)[0].decode("latin-1")
        if path == "/metrics":
            return "200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path in self._more:
            wrong = await self._more[path]()
        elif path in self._checks:
            wrong = self._checks[path]()
        else:
            return "404 Not Found", _TEXT, b"/metrics, /healthz and /readyz are what there is\n"
        return (
            ("503 Service Unavailable", _TEXT, f"{wrong}\n".encode()) if wrong else ("200 OK", _TEXT, b"ok\n")
        )
