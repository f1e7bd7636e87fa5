"""A server of the Open Inference Protocol as far as a load client sees it, with switches for what can go wrong."""

import asyncio
import json
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any

Reply = Callable[[int], bytes | None]

METADATA: dict[str, Any] = {
    "name": "m",
    "versions": ["1"],
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}


def answer(body: bytes = b'{"outputs":[]}', status: str = "200 OK", extra: str = "") -> bytes:
    """Return an answer with a length."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


class ModelServer:
    """Listens on loopback while it is entered.

    Attributes:
        metadata: answered to GET.
        reply: bytes to answer the n-th inference with; None closes the connection without a word.
        stalls: by number of the inference, seconds for which the whole server answers nothing from then on.
        heads: of the requests that came.
        bodies: of the inferences.
        connections: that were opened.
    """

    def __init__(self, reply: Reply = lambda _: answer(), tls: ssl.SSLContext | None = None) -> None:
        self.metadata: bytes = json.dumps(METADATA).encode()
        self.reply = reply
        self.stalls: dict[int, float] = {}
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self._tls = tls
        self._until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "ModelServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if head.startswith("GET "):
            writer.write(answer(self.metadata))
            return True
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        number = len(self.bodies)
        self.bodies.append(await reader.readexactly(length))
        now = asyncio.get_running_loop().time()
        self._until = max(self._until, now + self.stalls.get(number, 0.0))
        if self._until > now:
            await asyncio.sleep(self._until - now)
        said = self.reply(number)
        if said is None:
            return False
        writer.write(said)
        await writer.drain()
        return b"\r\nConnection: close" not in said and b"\r\nContent-Length" in said
