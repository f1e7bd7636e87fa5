"""A wire between the operator and the API server that a test can cut, or let go silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml


class Wire:
    """Forwards bytes; ``cut`` closes every connection and refuses new ones until ``mend``."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.whole = True
        self.port = 0

    def cut(self) -> None:
        self.whole = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self.whole = True

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.whole:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # cut, or hung up
        finally:
            self._writers.discard(sink)
            sink.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def wire(kubeconfig: Path, folder: Path) -> AsyncIterator[tuple[Wire, Path]]:
    """Return the wire and a kubeconfig that goes through it."""
    config = yaml.safe_load(kubeconfig.read_text())  # noqa: ASYNC240 - a small local file
    (entry,) = config["clusters"]
    server = urlsplit(entry["cluster"]["server"])
    assert server.hostname is not None
    found = Wire(server.hostname, server.port or 443)
    listening = await asyncio.start_server(found.accept, "127.0.0.1", 0)
    found.port = listening.sockets[0].getsockname()[1]
    entry["cluster"]["server"] = f"https://127.0.0.1:{found.port}"
    path = folder / "wired.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    try:
        yield found, path
    finally:
        found.cut()
        found.close()
        listening.close()
