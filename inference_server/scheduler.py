"""Runs one model for the requests that wait for it, on the event loop's thread or on threads of its own.

Promises that every request that was let in gets outputs or a `RequestError`, by its deadline if it has one; that no more
than `plan.sessions` runs are under way; that an idle session takes what waits without asking the event loop; and that one
request's failure is not another's: a shared run that fails is repeated for each by itself. Who is let in, what is taken and
when is decided by `request_queue`.

Threads: requests are added, cancelled and answered on the event loop's thread. The queue is behind a lock; sessions' threads
take from it and hand their results to the loop, one call for each run.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from inference_server.costs import Costs
from inference_server.errors import DeadlineExceeded, ExecutionFailed, NotFound, Overloaded, RequestError
from inference_server.merging import join, key_of, merge, rows_of, split
from inference_server.messages import Call, InferenceRequest
from inference_server.plan import Plan
from inference_server.request_queue import Batch, Piece, RequestQueue, Waiting
from inference_server.tensors import Array
from inference_server.thermal_curve import pause_after, slowed

logger = logging.getLogger(__name__)

MOST_WAITING = 1024
"""Most requests that may wait for one model; connections are bounded by twice that."""
_INLINE_SECONDS = 0.002
"""After so much computing the event loop gets to read and write before the next run."""
_REST_SECONDS = 0.004
"""Pauses between short runs are put together up to this: timers count in milliseconds."""
_LONELY = 8
"""After so many ticks with one request each, requests are computed as they come, without waiting for the tick's end …"""
_AT_ONCE = 64
"""… so many times; then one tick is waited for, to see whether it brings more."""

Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]


class Watcher(Protocol):
    """Who is told of runs and waits, on the event loop's thread."""

    def ran(self, rows: int, seconds: float) -> None:
        """Note that a run of so many rows took so long."""

    def waited(self, seconds: float) -> None:
        """Note that a request waited so long before its run."""


@dataclass(slots=True)
class _Done:
    """What came of a batch: outputs for each piece, or an error."""

    batch: Batch
    results: Sequence[list[Array] | RequestError]
    seconds: float


class Scheduler:
    """The runs of one model.

    Args:
        run: Computes; blocks; raises `RequestError`.
        plan: How.
        watcher: Is told of each run, on the event loop's thread.
        most_waiting: Most requests that may wait.
    """

    def __init__(self, run: Run, plan: Plan, watcher: Watcher, most_waiting: int = MOST_WAITING) -> None:
        self.plan = plan
        self._run = run
        self._watcher = watcher
        self._queue = RequestQueue(plan, Costs(plan.costs), most_waiting)
        self._closed = False
        self._due = False  # a flush is scheduled
        self._lonely = 0  # ticks in a row that brought one request
        self._at_once = 0  # requests that may still be computed without waiting for the tick's end
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._idle = 0
        self._allowed = plan.sessions
        self._share = 1.0  # of its time that an allowed session computes
        self._rest = 0.0  # seconds of pauses that are due after runs on the loop
        self._cool = threading.Event()  # set when pauses are over for good
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._emptied: asyncio.Event | None = None

    @property
    def running(self) -> tuple[Batch, ...]:
        """Runs that are under way, for whoever watches for one that hangs."""
        with self._lock:
            return self._queue.running

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return len(self._queue)

    def slow_down(self, share: float) -> None:
        """Compute only this share of the time, from just above 0 to 1: fewer runs at a time, and pauses between them."""
        with self._work:
            self._allowed, self._share = slowed(self.plan.sessions, share)
            self._work.notify_all()

    def check_door(self, deadline: float | None) -> None:
        """Refuse a request before it is decoded if it is sure not to be answered in time.

        Raises:
            Overloaded: Too much waits.
            DeadlineExceeded: Its deadline has passed.
        """
        now = time.monotonic()
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded("the deadline had passed when the request came")
        if deadline is not None or len(self._queue) >= self._queue.most_waiting:
            with self._lock:
                reason = self._queue.refuse(1, 0, deadline, now)
            if reason is not None:
                raise Overloaded(reason)

    async def compute(
        self, request: InferenceRequest, deadline: float | None, call: Call | None = None
    ) -> list[Array]:
        """Return the outputs of a request.

        Args:
            request: What to compute.
            deadline: Moment of `time.monotonic()` after which nobody wants it; None for none.
            call: Where to note how long it waited and computed; None for nowhere.

        Raises:
            RequestError: The model refuses or fails, there is no time for it, or the model has been unloaded.
        """
        if self._closed:
            raise NotFound("the model has just been unloaded")
        if self.plan.inline:
            return await self._compute_inline(request, deadline, call)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Array]] = loop.create_future()
        waiting = self._waiting(request, deadline, future)
        waiting.call = call
        with self._work:
            self._admit(waiting)
            if self._idle:
                self._work.notify()
        if not self._threads:
            self._start(loop)
        timer = None
        if deadline is not None:
            timer = loop.call_later(max(0.0, deadline - time.monotonic()), self._expire, waiting)
        try:
            return await future
        except asyncio.CancelledError:
            self._forget(waiting)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._check_emptied()

    async def close(self) -> None:
        """Take no further request, and return when those that wait are answered and no run is under way."""
        self._closed = True
        self._cool.set()
        self._emptied = asyncio.Event()
        with self._work:
            self._work.notify_all()
            over = not len(self._queue) and not self._queue.running
        if not over:
            await self._emptied.wait()
        for thread in self._threads:  # they hold the model until they have ended, which is a moment later
            await asyncio.to_thread(thread.join, 1.0)

    def abandon(self) -> None:
        """Take no further request and drop what waits; a run that is under way is left to itself."""
        self._closed = True
        self._cool.set()
        with self._work:
            left = self._queue.clear()
            self._work.notify_all()
        for waiting in left:
            _answer(waiting, Overloaded("the server ends; ask another"))

    # --- on the event loop's thread ---

    async def _compute_inline(
        self, request: InferenceRequest, deadline: float | None, call: Call | None
    ) -> list[Array]:
        if self._at_once and not self._due and self._share >= 1:
            self._at_once -= 1
            started = time.monotonic()
            arrays = self._run(request.outputs, request.inputs)
            seconds = time.monotonic() - started
            if call is not None:
                call.note(started, started, seconds, 1)
            self._watcher.ran(1, seconds)
            self._watcher.waited(0.0)
            return arrays
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Array]] = loop.create_future()
        waiting = self._waiting(request, deadline, future)
        waiting.call = call
        self._admit(waiting)
        if not self._due:
            self._due = True
            loop.call_soon(self._flush)
        try:
            return await future
        except asyncio.CancelledError:
            self._forget(waiting)
            self._check_emptied()
            raise

    def _waiting(
        self, request: InferenceRequest, deadline: float | None, future: "asyncio.Future[list[Array]]"
    ) -> Waiting:
        inputs = request.inputs
        rows, key = 1, None
        if self.plan.batchable:
            found = rows_of(inputs)
            if found is not None:
                rows, key = found, key_of(inputs, request.outputs)
        elements = 0
        for array in inputs.values():
            elements += array.size
        return Waiting(inputs, request.outputs, key, rows, elements, time.monotonic(), deadline, future)

    def _admit(self, waiting: Waiting) -> None:
        reason = self._queue.refuse(waiting.rows, waiting.elements, waiting.deadline, waiting.arrived)
        if reason is not None:
            raise Overloaded(reason)
        self._queue.push(waiting)

    def _flush(self) -> None:
        """Compute what was parsed in this tick."""
        queue, until = self._queue, time.monotonic() + _INLINE_SECONDS
        self._due = False
        while True:
            now = time.monotonic()
            batch, _ = queue.take(now)
            if queue.expired:
                self._tell_expired()
            if batch is None:
                break
            self._note_company(len(batch.pieces) + len(queue))
            done = self._compute(batch)
            queue.ended(batch, done.seconds)
            self._deliver(done)
            self._rest += pause_after(done.seconds, self._share)
            if self._rest >= _REST_SECONDS:
                self._due = True
                asyncio.get_running_loop().call_later(self._rest, self._flush)
                self._rest = 0.0
                break
            if len(queue) and time.monotonic() >= until:
                self._due = True
                asyncio.get_running_loop().call_soon(self._flush)
                break

    def _note_company(self, requests: int) -> None:
        """Learn how many requests come together: who is alone need not wait for others."""
        self._lonely = self._lonely + 1 if requests == 1 else 0
        if self._lonely >= _LONELY:
            self._lonely, self._at_once = _LONELY - 1, _AT_ONCE

    def _deliver(self, done: _Done) -> None:
        batch, watcher = done.batch, self._watcher
        watcher.ran(batch.rows, done.seconds)
        for piece, result in zip(batch.pieces, done.results, strict=True):
            waiting = piece.request
            if waiting.gone:
                continue
            if piece.first == 0:
                watcher.waited(batch.taken - waiting.arrived)
                if waiting.call is not None:
                    waiting.call.note(waiting.arrived, batch.taken, done.seconds, batch.rows)
            if piece.rows == waiting.rows or isinstance(result, RequestError):
                self._forget(waiting)
                _answer(waiting, result)
                continue
            parts = waiting.parts = {} if waiting.parts is None else waiting.parts
            parts[piece.first] = result
            waiting.rows_done += piece.rows
            if waiting.rows_done == waiting.rows:
                waiting.gone = True
                _answer(waiting, join(parts))
        self._check_emptied()

    def _check_emptied(self) -> None:
        if self._emptied is not None and not len(self._queue) and not self._queue.running:
            self._emptied.set()

    def _forget(self, waiting: Waiting) -> None:
        if waiting.rows_left:
            with self._lock:
                self._queue.forget(waiting)
        waiting.gone = True

    def _expire(self, waiting: Waiting) -> None:
        if not waiting.gone:
            self._forget(waiting)
            _answer(waiting, _too_late())

    def _tell_expired(self) -> None:
        with self._lock:
            late, self._queue.expired = self._queue.expired, []
        for waiting in late:
            _answer(waiting, _too_late())
        self._check_emptied()

    # --- on any thread ---

    def _compute(self, batch: Batch) -> _Done:
        batch.thread = threading.get_ident()
        started = time.monotonic()
        results = self._results(batch.pieces)
        return _Done(batch, results, time.monotonic() - started)

    def _results(self, pieces: list[Piece]) -> Sequence[list[Array] | RequestError]:
        """Return the outputs, or the error, for each piece."""
        outputs = pieces[0].request.outputs
        try:
            if len(pieces) == 1 and pieces[0].rows == pieces[0].request.rows:
                return [self._run(outputs, pieces[0].request.inputs)]
            arrays = self._run(
                outputs, merge([(piece.request.inputs, piece.first, piece.rows) for piece in pieces])
            )
            parts = split(arrays, [piece.rows for piece in pieces])
            if parts is not None:
                return parts
            logger.error("outputs have other first axes than inputs", extra={"fields": {"outputs": outputs}})
            if len(pieces) == 1:
                return [
                    ExecutionFailed(
                        "the model's answer has another first axis than the request; send fewer rows"
                    )
                ]
        except RequestError as error:
            if len(pieces) == 1:
                return [error]
        except MemoryError:
            if len(pieces) == 1:
                return [Overloaded("out of memory for this request; send a smaller batch or try later")]
        except Exception:
            # A bug of ours must not end a session's thread: logged whole, told without detail.
            logger.exception("a run failed unexpectedly")
            return [ExecutionFailed("internal error; the server's log has the details")] * len(pieces)
        # One of them is at fault, and the others must not be told so.
        return [result for piece in pieces for result in self._results([piece])]

    # --- on sessions' threads ---

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        for number in range(self.plan.sessions):
            # Daemons: a run that hangs must not keep the process.
            thread = threading.Thread(target=self._session, name=f"compute-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _session(self) -> None:
        while (batch := self._next()) is not None:
            done = self._compute(batch)
            with self._work:
                self._queue.ended(batch, done.seconds)
            self._on_loop(self._deliver, done)
            # After the answer was handed over: a hot machine makes the next request wait, not this one.
            if (rest := pause_after(done.seconds, self._share)) and not self._closed:
                self._cool.wait(rest)

    def _next(self) -> Batch | None:
        """Wait for a batch; None when there will be no more."""
        with self._work:
            while True:
                wait = None
                if len(self._queue.running) < self._allowed:
                    batch, wait = self._queue.take(time.monotonic())
                    if self._queue.expired:
                        self._on_loop(self._tell_expired)
                    if batch is not None:
                        return batch
                if self._closed and not len(self._queue):
                    return None
                self._idle += 1
                self._work.wait(wait)
                self._idle -= 1

    def _on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        # The loop is closed when the process ends while a run is under way.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


def _answer(waiting: Waiting, result: list[Array] | BaseException) -> None:
    future: asyncio.Future[list[Array]] = waiting.future
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before there was an answer; allow more time or send less")
