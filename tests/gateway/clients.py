"""Clients of a gateway: one that asks once, many that ask all the time, and patience."""

import asyncio
import collections
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SECONDS = 20.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


async def until(true: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110 - the state of another process, and no event to wait for
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


_CLIENTS: list["Client"] = []
"""All of the running test; its site closes them."""


class Client:
    """One connection that is kept, and opened anew only where the other side closed it behind an answer."""

    def __init__(
        self, port: int, host: str = "127.0.0.1", ssl: Any = None, server_name: str | None = None
    ) -> None:
        self._to: dict[str, Any] = {"host": host, "port": port, "ssl": ssl, "server_hostname": server_name}
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.connections = 0
        _CLIENTS.append(self)

    async def ask(self, path: str = "/v2/infer", body: bytes = b"{}", **headers: str) -> Answer:
        if self._open is None:
            self._open = await asyncio.open_connection(**{k: v for k, v in self._to.items() if v is not None})
            self.connections += 1
        reader, writer = self._open
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        content = await reader.readexactly(int(found.get("content-length", 0)))
        if found.get("connection") == "close":
            self.close()
        return Answer(int(head[0].split()[1]), found, content)

    def close(self) -> None:
        if self._open is not None:
            self._open[1].transport.abort()
        self._open = None


def close_all() -> None:
    """Close what every client of before has left open."""
    while _CLIENTS:
        _CLIENTS.pop().close()


async def versions(client: Client, times: int) -> collections.Counter[str]:
    """Ask that many times and count the answers by version."""
    found: collections.Counter[str] = collections.Counter()
    for _ in range(times):
        answer = await client.ask()
        assert answer.status == 200, answer
        found[answer.text.split()[0]] += 1
    return found


class Load:
    """Clients that ask all the time, until the block ends; ``answers`` counts, ``wrong`` keeps what was not 200.

    With ``again`` a client whose connection is refused or breaks sends the request once more, at once; what became of the
    second try counts. ``fresh`` ones open a connection for each request.
    """

    def __init__(self, port: int, clients: int = 4, *, again: bool = False, fresh: bool = False) -> None:
        self._port, self._clients, self._again, self._fresh = port, clients, again, fresh
        self.broken = 0
        """First tries that broke, of those that were made again."""
        self.answers: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.longest = 0.0
        """Seconds that an answer took, at most."""
        self._tasks: list[asyncio.Task[None]] = []
        self._since: dict[Client, float] = {}

    def longest_wait(self) -> float:
        """Return how long, in seconds, somebody has waited who waits now."""
        now = asyncio.get_running_loop().time()
        return max((now - since for since in self._since.values()), default=0.0)

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self) -> None:
        client = Client(self._port)
        try:
            while True:
                self._since[client] = began = asyncio.get_running_loop().time()
                try:
                    try:
                        answer = await client.ask()
                    except (OSError, EOFError):
                        if not self._again:
                            raise
                        self.broken += 1
                        client = Client(self._port)
                        answer = await client.ask()
                    self.longest = max(self.longest, asyncio.get_running_loop().time() - began)
                except (OSError, EOFError) as error:
                    del self._since[client]
                    self.wrong.append(f"{type(error).__name__}: {error}")
                    client = Client(self._port)
                    await asyncio.sleep(0.02)
                    continue
                if answer.status == 200:
                    self.answers[answer.text.split()[0]] += 1
                else:
                    self.wrong.append(f"{answer.status} {answer.text}")
                    await asyncio.sleep(0.02)
                if self._fresh:
                    client.close()
        finally:
            client.close()

    @property
    def total(self) -> int:
        return self.answers.total()


async def answering(port: int) -> Client:
    """Return a client of a model, once it is led to."""
    client = Client(port)
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                if (await client.ask()).status == 200:
                    return client
            except (OSError, EOFError):
                client = Client(port)
            await asyncio.sleep(0.02)
