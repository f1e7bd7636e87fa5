"""The client of an open loop, a process of its own: requests leave when they are due, whatever the pace of the answers.

Reads what to send from standard input, writes ``[[due, took, status], …]`` to standard output. A request for which no
connection is free waits, and its waiting counts: nothing is left out because the server was slow (coordinated omission).
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import deque
from typing import Any, cast

_SEED = 5
_PATIENCE = 20.0


class Connection(asyncio.Protocol):
    """One kept connection: a request at a time, of whose answer the status and the end are of interest."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._buffer = bytearray()
        self._due: float | None = None
        self._needed = -1
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    def ask(self, due: float) -> None:
        """Send the request that was due then."""
        assert self.transport is not None
        self._due = due
        self.transport.write(self._client.request)

    def data_received(self, data: bytes) -> None:
        """Read on until the answer is whole."""
        self._buffer += data
        if self._needed < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            length = head.split(b"\r\ncontent-length:", 1)[1].split(b"\r\n", 1)[0]
            self._needed = end + 4 + int(length)
        if len(self._buffer) >= self._needed and self._due is not None:
            status, due = int(self._buffer[9:12]), self._due
            self._buffer.clear()
            self._needed, self._due = -1, None
            self._client.answered(self, due, status)

    def connection_lost(self, _error: Exception | None) -> None:
        """Count the request that was under way."""
        if self._due is not None:
            self._client.lost(self._due)


class Client:
    """All connections, and the requests that wait for one."""

    def __init__(self, told: dict[str, Any]) -> None:
        body = told["body"].encode()
        head = f"POST {told['path']} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        self.request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self.answers: list[tuple[float, float, int]] = []
        self._free: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._began = 0.0
        self._told = told
        self._expected = -1
        self._all = asyncio.Event()

    def answered(self, connection: Connection, due: float, status: int) -> None:
        """Write down an answer; its connection goes on with what waits."""
        self.answers.append((due, time.perf_counter() - self._began - due, status))
        self._note_end()
        if connection.transport is None or connection.transport.is_closing():
            return
        if self._waiting:
            connection.ask(self._waiting.popleft())
        else:
            self._free.append(connection)

    def lost(self, due: float) -> None:
        """Write down a request that got no answer."""
        self.answers.append((due, time.perf_counter() - self._began - due, 0))
        self._note_end()

    def _note_end(self) -> None:
        if len(self.answers) == self._expected:
            self._all.set()

    async def run(self) -> None:
        """Send all requests; wait for their answers, but no longer than the patience."""
        loop = asyncio.get_running_loop()
        for _ in range(self._told["connections"]):
            _, connection = await loop.create_connection(
                lambda: Connection(self), "127.0.0.1", self._told["port"]
            )
            self._free.append(connection)
        self._began = time.perf_counter()
        due, end, sent = 0.0, 0.0, 0
        arrivals = random.Random(_SEED)
        for phase in self._told["phases"]:
            end += phase["seconds"]
            rate, paced = phase["rate"], phase["paced"]
            while (due := due + (1 / rate if paced else arrivals.expovariate(rate))) < end:
                late = time.perf_counter() - self._began
                if due > late:
                    await asyncio.sleep(due - late)
                self._send(due)
                sent += 1
            due = end
        self._expected = sent
        self._note_end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all.wait(), _PATIENCE)
        self.answers += [(due, _PATIENCE, 0)] * (sent - len(self.answers))

    def _send(self, due: float) -> None:
        while self._free:
            connection = self._free.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                connection.ask(due)
                return
        self._waiting.append(due)


def main() -> None:
    client = Client(json.load(sys.stdin))
    try:
        import uvloop
    except ImportError:
        asyncio.run(client.run())
    else:
        uvloop.run(client.run())
    json.dump(client.answers, sys.stdout)


if __name__ == "__main__":
    main()
