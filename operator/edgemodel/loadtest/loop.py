"""Keeps a load on a server for a while: decides when a request is due, on which connection it goes, and files what came.

Promises about the open loop that a request's latency counts from when it was due, however long it had to wait for a
connection, so that a server that stalls is charged for all whom it kept waiting; and that memory is bounded: due times are
computed, not queued. A request that no connection was free for within the timeout counts as ``timeout`` and is not sent.
"""

import asyncio
import gc
import random
import selectors
import time
from collections.abc import Callable, Iterator, Sequence

from edgemodel.loadtest.connection import Answer, Connection, Owner
from edgemodel.loadtest.http_connection import HttpConnection
from edgemodel.loadtest.result import Closed, Extent, Open, Outcome
from edgemodel.loadtest.target import Target

MOST_CONNECTIONS = 900
"""select(2) takes 1024 files."""
_SWEEP_SECONDS = 0.02
_AFTER_REFUSED_CONNECTION = 0.05


def event_loop(load: Closed | Open) -> asyncio.AbstractEventLoop:
    """Return the event loop that suits a load.

    An open loop needs timers that are exact to some 0.1 ms: select(2) has them, while epoll's, which asyncio takes by
    itself, and uvloop's wake up at whole milliseconds only; a request that is due between two would be late by half of one
    on average, which is more than a small model takes to answer. A closed loop needs no timers, and uvloop where it is
    installed (the ``server`` extra brings it) sends twice as many requests with the same processor time.
    """
    if isinstance(load, Closed):
        try:
            import uvloop
        except ImportError:
            return asyncio.new_event_loop()
        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def measured(target: Target, requests: Sequence[bytes], load: Closed | Open, extent: Extent) -> Outcome:
    """Run one load to its end, in an event loop of its own."""

    async def run() -> Outcome:
        return await Loop(target, requests, load, extent).run()

    with asyncio.Runner(loop_factory=lambda: event_loop(load)) as runner:
        return runner.run(run())


class Loop:
    """One load, from its first request to its last answer.

    Args:
        target: the server.
        requests: whole ones, sent in turn.
        load: what is asked.
        extent: how long it goes on.
    """

    def __init__(
        self, target: Target, requests: Sequence[bytes], load: Closed | Open, extent: Extent
    ) -> None:
        self._target, self._requests, self._extent = target, requests, extent
        self.outcome = Outcome(load)
        self._open = isinstance(load, Open)
        self._most = min(MOST_CONNECTIONS, load.connections if isinstance(load, Open) else load.concurrency)
        self._dues = _dues(load) if isinstance(load, Open) else None
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._out: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened_not_before = 0.0
        self._turn = self._counted = 0
        self._due = self._began = self._counts_from = self._ends = 0.0
        self._last = 0.0
        self._no_more = False
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()

    async def run(self) -> Outcome:
        """Send until the extent is reached, wait for what is out, and return what came of it."""
        # What is there stays; a collection that walks through it would be a pause in the middle of the figures.
        gc.collect()
        gc.freeze()
        self._began = self._due = time.perf_counter()
        self._counts_from = self._began + self._extent.warm_up
        self._ends = self._counts_from + self._extent.seconds
        used = time.process_time()
        try:
            self._pump()
            while not self._over.is_set():
                await asyncio.sleep(_SWEEP_SECONDS)
                self._sweep()
        finally:
            gc.unfreeze()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for connection in (*self._idle, *self._out):
                connection.close()
        ends = min(self._last or self._ends, self._ends) if self._extent.requests else self._ends
        self.outcome.seconds = max(ends - self._counts_from, 1e-9)
        self.outcome.client_share = (time.process_time() - used) / (time.perf_counter() - self._began)
        return self.outcome

    # --- Owner ---

    def answered(self, connection: Connection, answer: Answer) -> None:
        """File an answer, and give its connection the next request."""
        now = time.perf_counter()
        self._out.discard(connection)
        if answer.failure:
            self._failed(connection.due, now, answer.failure, answer.body.decode(errors="replace"))
        else:
            counts = connection.due >= self._counts_from
            if counts:
                self.outcome.latency.add(now - connection.due)
                self._last = now
            # Of a closed loop also the answers to what was sent before: as many are out at the end.
            if now <= self._ends and (counts if self._open else now >= self._counts_from):
                self.outcome.answered += 1
        if answer.reusable:
            self._idle.append(connection)
        self._pump()

    def lost(self, connection: Connection, words: str) -> None:
        """File a request that has no answer, and forget the connection."""
        if connection in self._out:
            self._out.discard(connection)
            self._failed(connection.due, time.perf_counter(), "connection", words)
        elif connection in self._idle:
            self._idle.remove(connection)
        self._loop.call_soon(self._pump)

    # --- sending ---

    def _pump(self) -> None:
        """Send what is due, as far as connections are free or may be opened."""
        now = time.perf_counter()
        while not self._ended(now):
            due = self._due if self._open else now
            if due > now:
                self._wake(due - now)
                break
            if now - due > self._extent.timeout:
                self._failed(due, now, "timeout", "no connection was free in time")
                self._next_due()
            elif self._idle:
                connection = self._idle.pop()
                self._next_due()
                self._send(connection, due)
                now = time.perf_counter()
            elif len(self._out) + len(self._tasks) < self._most and now >= self._opened_not_before:
                self._next_due()
                task = self._loop.create_task(self._connect(due))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                break
        if self._no_more and not self._out and not self._tasks:
            self._over.set()

    def _ended(self, now: float) -> bool:
        if now >= self._ends or self._counted == self._extent.requests:
            self._no_more = True
        return self._no_more

    def _next_due(self) -> None:
        due = self._due if self._dues is not None else time.perf_counter()
        if due >= self._counts_from:
            self._counted += 1
        if self._dues is not None:
            self._due = self._began + next(self._dues)

    def _send(self, connection: Connection, due: float) -> None:
        connection.due, connection.sent = due, time.perf_counter()
        self._out.add(connection)
        request = self._requests[self._turn % len(self._requests)]
        self._turn += 1
        connection.send(request)

    def _wake(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._pump()

    async def _connect(self, due: float) -> None:
        try:
            connection = await connect(self._target, self, self._extent.timeout)
        except (OSError, TimeoutError) as error:
            now = time.perf_counter()
            self._opened_not_before = now + _AFTER_REFUSED_CONNECTION
            self._failed(due, now, "connection", f"cannot connect: {error or type(error).__name__}")
        else:
            self._send(connection, due)

    # --- filing ---

    def _sweep(self) -> None:
        """Give up what has had its time."""
        now = time.perf_counter()
        for connection in [one for one in self._out if now - one.sent > self._extent.timeout]:
            self._out.discard(connection)
            self._failed(connection.due, now, "timeout", f"no answer within {self._extent.timeout:g} s")
            connection.abort("timeout")
        self._pump()

    def _failed(self, due: float, now: float, kind: str, words: str) -> None:
        if due < self._counts_from:
            return
        self._last = now
        self.outcome.fail(kind, words)
        if kind == "timeout":
            self.outcome.latency.add(now - due)


def _dues(load: Open) -> Iterator[float]:
    """Yield the seconds after the beginning at which the second request, the third and so on are due."""
    if not load.random:
        number = 0
        while True:
            number += 1
            yield number / load.rate
    source, at = random.Random(1), 0.0  # noqa: S311 - nothing secret
    while True:
        at += source.expovariate(load.rate)
        yield at


async def connect(target: Target, owner: Owner, patience: float, keep: int = 300) -> Connection:
    """Open a connection of the target's protocol.

    Raises:
        OSError: it is refused, or TLS fails.
        TimeoutError: it takes too long.
    """
    async with asyncio.timeout(patience):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _spoken(target)(owner, keep),
            target.host,
            target.port,
            ssl=target.tls,
            server_hostname=target.host if target.tls else None,
        )
    if connection.over:
        raise ConnectionResetError("the server closed the connection at once")
    return connection


def _spoken(target: Target) -> Callable[[Owner, int], Connection]:
    if target.grpc:
        from edgemodel.loadtest.grpc_connection import GrpcConnection

        return GrpcConnection
    return HttpConnection


class _Once:
    """Waits for one answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answered(self, connection: Connection, answer: Answer) -> None:
        """Take it."""
        connection.close()
        if not self.answer.done():
            self.answer.set_result(answer)

    def lost(self, _: Connection, words: str) -> None:
        """There is none."""
        if not self.answer.done():
            self.answer.set_exception(ConnectionError(words))


async def ask(target: Target, request: bytes, patience: float, keep: int) -> Answer:
    """Send one request on a connection of its own.

    Args:
        target: the server.
        request: a whole one.
        patience: seconds for the connection, and again for the answer.
        keep: bytes of the body to keep.

    Raises:
        OSError: the connection is refused or broken.
        ssl.SSLError: an OSError, too; TLS fails.
        TimeoutError: it takes too long.
    """
    once = _Once()
    connection = await connect(target, once, patience, keep)
    connection.send(request)
    try:
        async with asyncio.timeout(patience):
            return await once.answer
    finally:
        connection.close()
