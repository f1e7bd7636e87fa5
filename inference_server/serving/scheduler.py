"""Runs one model for the requests that wait for it, on threads of its own.

Promises that every request that was let in gets outputs or a `RequestError`, by its deadline if it has one; that no more
than `plan.sessions` runs are under way; and that an idle session takes what waits without asking the event loop. Who is let
in, what is taken and when is decided by `request_queue`; what is cheaper on the event loop's own thread is computed by
`inline_scheduler`.

Threads: requests are added, cancelled and answered on the event loop's thread. The queue is behind a lock; sessions' threads
take from it and hand their results to the loop, one call for each run.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

from inference_server.engine.plan import Plan
from inference_server.errors import DeadlineExceeded, NotFound, Overloaded, RequestError
from inference_server.host.thermal_curve import pause_after, slowed
from inference_server.messages import Call, InferenceRequest
from inference_server.serving.costs import Costs
from inference_server.serving.merging import elements_of, join, key_of, rows_of
from inference_server.serving.request_queue import Batch, RequestQueue, Waiting
from inference_server.serving.runs import Done, Run, compute
from inference_server.tensors import Array

_QUIET_SECONDS = 0.0001
"""Answers were sent, and for so long no request came: whoever asks again at once has done so."""
_ASIDE_SECONDS = 0.01
"""In overload the loop reads no more often than that. Woken for each request, with caches full of the model's numbers, it
would spend a sixth of a core on refusals that are needed half as soon."""
_FADES = 0.95
"""What is known of how long answers take to write, after one more that took no time."""
MOST_WAITING = 1024
"""Most requests that may wait for one model; connections are bounded by twice that."""


class Watcher(Protocol):
    """Who is told of runs and waits, on the event loop's thread."""

    def ran(self, rows: int, seconds: float) -> None:
        """Note that a run of so many rows took so long."""

    def waited(self, seconds: float) -> None:
        """Note that a request waited so long before its run."""


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
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._idle = 0
        self._allowed = plan.sessions
        self._share = 1.0  # of its time that an allowed session computes
        self._cool = threading.Event()  # set when pauses are over for good
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._emptied: asyncio.Event | None = None
        self._ended = threading.Event()  # a run, and its answers are to be delivered
        self._aside_due: float | None = None  # since the first request was refused in this turn of the loop
        self._unread = 0.0  # seconds that what is read in this turn of the loop may have waited to be read
        self._unwritten = 0.0  # seconds from a run's end to its last answer, of late
        # Requests that are still expected, and since when that number stands.
        self._looking: tuple[int, float] | None = None

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

    @property
    def prompt(self) -> bool:
        """Whether `at_once` is worth trying."""
        return False

    def at_once(self, request: InferenceRequest) -> list[Array] | None:
        """Return the outputs of a request if that needs no waiting; None if it does: `compute` it.

        Raises:
            RequestError: As `compute`.
        """
        del request
        return None

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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Array]] = loop.create_future()
        if deadline is not None:
            deadline -= self._unread + self._unwritten
        waiting = self._waiting(request, deadline, future)
        waiting.call = call
        try:
            with self._work:
                self._admit(waiting)
                if self._idle and not self._queue.holds_back:
                    self._work.notify()
        except Overloaded:
            self._unwritten *= _FADES  # who lets nobody in learns nothing
            if self._aside_due is None:
                self._aside_due = waiting.arrived
                loop.call_soon(self._step_aside)
            raise
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

    def written(self, seconds: float) -> None:
        """Learn how long after its run an answer was there: the loop makes those of a batch one after the other."""
        self._unwritten = max(seconds, self._unwritten * _FADES)

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

    def _waiting(
        self, request: InferenceRequest, deadline: float | None, future: "asyncio.Future[list[Array]]"
    ) -> Waiting:
        inputs = request.inputs
        rows, key = 1, None
        if self.plan.batchable:
            found = rows_of(inputs)
            if found is not None:
                rows, key = found, key_of(inputs, request.outputs)
        elements = elements_of(inputs)
        return Waiting(inputs, request.outputs, key, rows, elements, time.monotonic(), deadline, future)

    def _admit(self, waiting: Waiting) -> None:
        reason = self._queue.refuse(waiting.rows, waiting.elements, waiting.deadline, waiting.arrived)
        if reason is not None:
            raise Overloaded(reason)
        self._queue.push(waiting)

    def _step_aside(self) -> None:
        """Leave the processor to the sessions for a moment, while all of them compute."""
        assert self._aside_due is not None
        since, self._aside_due = self._aside_due, None
        with self._lock:
            busy = len(self._queue.running) >= self._allowed
        if busy and not self._closed:
            self._ended.wait(_ASIDE_SECONDS)
            self._unread = time.monotonic() - since
            asyncio.get_running_loop().call_soon(self._forget_pause)

    def _forget_pause(self) -> None:
        self._unread = 0.0

    def _deliver(self, done: Done) -> None:
        self._ended.clear()
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
        if self._queue.coming:
            if self._looking is None:
                # After the callers have written their answers: their turns of the loop are before this one.
                asyncio.get_running_loop().call_soon(self._look)
            self._looking = -1, 0.0

    def _look(self) -> None:
        """Turn the loop until those who are expected to ask again have done so, or nobody does."""
        coming, now = self._queue.coming, time.monotonic()
        if self._looking is None or self._looking[0] != coming:
            self._looking = coming, now
        if coming and now - self._looking[1] < _QUIET_SECONDS:
            asyncio.get_running_loop().call_soon(self._look)
            return
        self._looking = None
        with self._work:
            self._queue.coming = 0
            if self._idle and len(self._queue):
                self._work.notify()

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
            batch.thread = threading.get_ident()
            done = compute(self._run, batch)
            self._ended.set()
            with self._work:
                self._queue.ended(batch, done.seconds)
                self._queue.expect(batch, time.monotonic(), done.seconds)
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
