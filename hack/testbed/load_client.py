"""Send requests at a steady rate over keep-alive connections and judge every answer; ``testbed.load`` starts it.

Open loop: requests are due at fixed times whether or not earlier ones were answered, and latency counts from when a
request was due, so that a stall is not hidden by the client's waiting with it. Each different answer is judged once, by
value, against what the version named in it must say; after that its bytes are known.

Reads one JSON object from standard input and goes on until standard input ends; writes one JSON line per 100 ms with every
answer in it. At 600 requests/s it takes 8 % of a core, and wrk with a Lua check of each answer 3 % (the same server and
machine); but wrk can't keep a rate while some connections wait, nor tell when an answer of a version was seen.
"""

import asyncio
import contextlib
import json
import math
import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import httptools
import uvloop

WINDOW = 0.1
"""Seconds of one line."""
MOST_KNOWN = 10_000
"""Different right answers that are remembered by their bytes."""

Verdict = tuple[Literal["right", "wrong", "failed"], str]
"""With the version for ``right``, else with words."""


@dataclass(slots=True)
class Request:
    """One request on its way."""

    case: int
    due: float
    resent: bool = False


class Judge:
    """Knows what each version must answer to each case.

    Args:
        expected: per case, by version, the values of the model's one output, flattened.
        relative: tolerance.
        absolute: tolerance.
    """

    def __init__(
        self, expected: list[dict[str, list[float]]], relative: float = 1e-5, absolute: float = 1e-6
    ) -> None:
        self._expected, self._relative, self._absolute = expected, relative, absolute
        self._known: dict[tuple[int, bytes], str] = {}

    def judge(self, case: int, status: int, body: bytes) -> Verdict:
        """Return what is to be thought of an answer."""
        if status != 200:
            return "failed", f"HTTP {status}: {body[:200].decode(errors='replace')}"
        version = self._known.get((case, body))
        if version is not None:
            return "right", version
        try:
            answer = json.loads(body)
            version, (output,) = answer["model_version"], answer["outputs"]
            wanted, found = self._expected[case].get(version), output["data"]
        except (ValueError, KeyError, TypeError) as error:
            return "wrong", f"not an inference answer ({error!r}): {body[:200]!r}"
        if wanted is None:
            return "wrong", f"an answer from version {version!r}, which should not answer"
        if len(wanted) != len(found) or not all(map(self._close, wanted, found)):
            return "wrong", f"version {version}, case {case}: expected {wanted[:4]} …, found {found[:4]} …"
        if len(self._known) < MOST_KNOWN:
            self._known[case, body] = version
        return "right", version

    def _close(self, wanted: float, found: float | None) -> bool:
        return found is not None and math.isclose(
            wanted, found, rel_tol=self._relative, abs_tol=self._absolute
        )


@dataclass
class Window:
    """What came in 100 ms; times are seconds of the wall clock, latencies seconds."""

    answers: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    failed: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[tuple[float, str]] = field(default_factory=list)
    resent: int = 0

    def line(self) -> str:
        """Return it as JSON."""
        rounded = {
            version: [(round(at, 4), round(latency, 6)) for at, latency in answers]
            for version, answers in self.answers.items()
        }
        document = {
            "answers": rounded,
            "failed": self.failed,
            "wrong": self.wrong,
            "resent": self.resent,
        }
        return json.dumps(document, separators=(",", ":"))


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request out."""

    def __init__(self, client: "Client", request: Request) -> None:
        self.client, self.request = client, request
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""
        self.keep = True
        self.deadline = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what it was opened for."""
        self.transport = cast(asyncio.Transport, transport)
        self.send(self.request)

    def send(self, request: Request) -> None:
        """Send a request; nothing else may be out."""
        assert self.transport is not None
        self.request, self.body = request, b""
        self.deadline = self.client.loop.time() + self.client.timeout
        self.client.out.add(self)
        self.transport.write(self.client.wire[request.case])

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.client.broken(self, f"not HTTP: {error}: {data[:100]!r}")

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self.body += body

    def on_message_complete(self) -> None:
        """Called by the parser: the answer is whole."""
        self.keep = self.parser.should_keep_alive()
        self.client.answered(self, self.parser.get_status_code(), self.body)

    def connection_lost(self, error: Exception | None) -> None:
        """The other side, or a timeout of ours, closed it."""
        self.client.lost(self, error)


class Client:
    """Keeps the rate, hands requests to connections, and files answers.

    Args:
        target: ``url`` (of the inference endpoint), ``rate`` (requests/s), ``connections`` (most at a time), ``timeout``
            (seconds), ``resend`` (whether a request whose connection broke before any of its answer came is sent once
            more, as clients do with idempotent requests), ``requests`` (how many, 0 for no end), ``cases``
            ([{body, expected}]).
    """

    def __init__(self, target: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        url = urlsplit(target["url"])
        self.host, self.port = url.hostname or "", url.port or 80
        self.rate, self.most, self.timeout = target["rate"], target["connections"], target["timeout"]
        self.resend, self.requests = target["resend"], target["requests"]
        headers = {"Host": url.netloc, "Content-Type": "application/json", **target.get("headers", {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.wire = [
            f"POST {url.path} HTTP/1.1\r\n{lines}Content-Length: {len(case['body'])}\r\n\r\n{case['body']}".encode()
            for case in target["cases"]
        ]
        self.judge = Judge([case["expected"] for case in target["cases"]])
        self.offset = time.time() - loop.time()
        self.window = Window()
        self.idle: deque[Connection] = deque()
        self.out: set[Connection] = set()
        self.opening = 0
        self.waiting: deque[Request] = deque()
        self.stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Go on until told to stop, then until all that is out has been answered."""
        began, sent = self.loop.time(), 0
        printed = began
        while not self.stopping.is_set() or self.out or self.opening or self.waiting:
            now = self.loop.time()
            while not self.stopping.is_set() and began + sent / self.rate <= now:
                self._submit(Request(sent % len(self.wire), began + sent / self.rate))
                sent += 1
                if sent == self.requests:
                    self.stopping.set()
            if now - printed >= WINDOW:
                printed = now
                self._time_out(now)
                self._print()
            await asyncio.sleep(max(0.001, began + sent / self.rate - self.loop.time()))
        self._print()

    def _print(self) -> None:
        print(self.window.line(), flush=True)
        self.window = Window()

    def _submit(self, request: Request) -> None:
        if self.idle and not request.resent:
            self.idle.popleft().send(request)
        elif len(self.idle) + len(self.out) + self.opening < self.most:
            self.opening += 1
            task = self.loop.create_task(self._open(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self.waiting.append(request)

    async def _open(self, request: Request) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                await self.loop.create_connection(lambda: Connection(self, request), self.host, self.port)
        except (OSError, TimeoutError) as error:
            self._failed(f"cannot connect: {error or type(error).__name__}")
        finally:
            self.opening -= 1

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        """File an answer and give its connection the next request."""
        request, now = connection.request, self.loop.time()
        self.out.discard(connection)
        kind, words = self.judge.judge(request.case, status, body)
        if kind == "right":
            answers = self.window.answers.setdefault(words, [])
            answers.append((now + self.offset, now - request.due))
        elif kind == "wrong":
            self.window.wrong.append((now + self.offset, words))
        else:
            self._failed(words)
        if not connection.keep:
            assert connection.transport is not None
            connection.transport.close()
        elif self.waiting:
            # From the loop: the parser is still inside the message that ends here.
            self.loop.call_soon(self._next, connection)
        else:
            self.idle.append(connection)

    def _next(self, connection: Connection) -> None:
        assert connection.transport is not None
        if connection.transport.is_closing():
            return
        if self.waiting:
            connection.send(self.waiting.popleft())
        else:
            self.idle.append(connection)

    def broken(self, connection: Connection, words: str) -> None:
        """File a request that will get no answer any more."""
        if connection in self.out:
            self.out.discard(connection)
            request = connection.request
            if self.resend and not request.resent and not connection.body:
                request.resent = True
                self.window.resent += 1
                self._submit(request)
            else:
                self._failed(words)
        assert connection.transport is not None
        connection.transport.abort()

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """Forget a connection; what was out on it has failed."""
        self.broken(connection, f"connection closed before the answer: {error or 'end of stream'}")
        with contextlib.suppress(ValueError):
            self.idle.remove(connection)
        while self.waiting and len(self.idle) + len(self.out) + self.opening < self.most:
            self._submit(self.waiting.popleft())

    def _failed(self, words: str) -> None:
        self.window.failed.append((self.loop.time() + self.offset, words))

    def _time_out(self, now: float) -> None:
        for connection in [one for one in self.out if one.deadline < now]:
            self.broken(connection, f"no answer within {self.timeout:g} s")
        while self.waiting and now - self.waiting[0].due > self.timeout:
            self.waiting.popleft()
            self._failed(f"no connection was free within {self.timeout:g} s")


async def _run() -> None:
    loop = asyncio.get_running_loop()
    target = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    client = Client(target, loop)
    loop.add_reader(sys.stdin.fileno(), client.stopping.set)
    loop.set_exception_handler(_give_up)
    await client.run()


def _give_up(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """End the process on an error of its own: a load that silently isn't one would prove anything."""
    loop.default_exception_handler(context)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    uvloop.run(_run())
