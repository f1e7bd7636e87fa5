"""A link of a given speed: a TCP relay in front of a registry that hands answers on no faster than so many bits a second.

All connections share the link, as they share a site's uplink; a latency stands for the distance. What went over it is
counted, in both directions, and so is how many connections were open at once.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE = 16 << 10
"""Bytes handed on at a time: 13 ms at 10 Mbit/s."""

LATENESS = 0.02
"""Seconds."""


@dataclass
class SlowLink:
    """A link that is up; ``rate`` may be changed while it is.

    Attributes:
        address: ``host:port`` to use in place of the registry's.
        rate: bits a second of answers; 0 lets everything through.
        latency: seconds that an answer's first byte takes longer.
        received: bytes of answers that went over it.
        sent: bytes of requests.
        connections: how many connections were opened.
        open: how many are open now.
        most_open: the most that were open at the same time; may be set back to 0.
    """

    address: str
    rate: float
    latency: float
    received: int = 0
    sent: int = 0
    connections: int = 0
    open: int = 0
    most_open: int = 0
    _free_at: float = field(default=0.0, repr=False)

    async def relay(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        # A cancelled relay is the link going down; asyncio's server would report it as a mistake.
        with suppress(asyncio.CancelledError):
            await self._relay(target, reader, writer)
        self.open -= 1

    async def _relay(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.rpartition(":")
        try:
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.ensure_future(self._up(reader, there_writer)),
            asyncio.ensure_future(self._down(there_reader, writer)),
        ]
        try:
            # Either end may hang up: HTTP has no use for a connection that is half open.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (writer, there_writer):
                end.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                await asyncio.sleep(self.latency)
                self.sent += len(piece)
                writer.write(piece)
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                if self.rate:
                    now = time.monotonic()
                    # Sleeps end late; what a late one lost may be made up for, a longer silence may not.
                    self._free_at = max(self._free_at, now - LATENESS) + len(piece) * 8 / self.rate
                    await asyncio.sleep(max(0.0, self._free_at - now))
                self.received += len(piece)
                writer.write(piece)
                await writer.drain()


@contextmanager
def slow_link(
    target: str, *, rate: float, listen: str = "127.0.0.1", port: int = 0, latency: float = 0.01
) -> Iterator[SlowLink]:
    """Open a link to ``host:port``; ``rate`` in bits a second. It listens on ``listen``; port 0 picks a free one."""
    loop = asyncio.new_event_loop()
    link = SlowLink("", rate, latency)
    opened = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(
            lambda reader, writer: link.relay(target, reader, writer), listen, port, limit=PIECE
        )
        link.address = f"{listen}:{server.sockets[0].getsockname()[1]}"
        opened.set()
        await stop.wait()
        server.close()
        pending = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    opened.wait(timeout=10)
    try:
        yield link
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=10)
        loop.close()
