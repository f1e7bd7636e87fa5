"""Runs a model that is cheaper to compute than to hand to another thread: on the event loop's own.

All requests that are parsed in one tick of the loop share runs; who is alone, as calm hours are, is computed as it comes.
What was calibrated may be wrong for what is asked: a request that is much larger, or a model whose price lies in its values,
goes to threads, so that the loop goes on answering.
"""

import asyncio
import logging
import time
from dataclasses import replace

from inference_server.engine.plan import Plan
from inference_server.errors import NotFound
from inference_server.host.thermal_curve import pause_after
from inference_server.messages import Call, InferenceRequest
from inference_server.serving.costs import Costs
from inference_server.serving.merging import elements_of, rows_of
from inference_server.serving.request_queue import Batch
from inference_server.serving.runs import Run, compute
from inference_server.serving.scheduler import MOST_WAITING, Scheduler, Watcher
from inference_server.tensors import Array

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.002
"""After so much computing the event loop gets to read and write before the next run; longer runs go to threads."""
_PROMPT_SECONDS = 0.0001
"""Runs up to so long begin as soon as their request is there …"""
_COMPANY_SECONDS = 0.00002
"""… unless company would make them cheaper by more than this, which is what waiting for a run and its answer costs."""
_REST_SECONDS = 0.004
"""Pauses between short runs are put together up to this: timers count in milliseconds."""
_LONELY = 8
"""After so many ticks with one request each, requests are computed as they come, without waiting for the tick's end …"""
_UNWAITED = 64
"""… so many times; then one tick is waited for, to see whether it brings more."""
_SLOW_SECONDS = 0.01
_SLOW_RUNS = 3.0
_FORGET = 0.98
"""After some slow runs close together (each run before counts for so much of its successor) all go to threads …"""
_HANGING_SECONDS = 0.25
"""… and after a single one of so long."""
_MARK_EVERY = 64
"""Runs between two looks at the thread's own clock, which tells a slow model from a busy neighbour."""


class InlineScheduler(Scheduler):
    """The runs of one small model; arguments and promises as `Scheduler`'s."""

    def __init__(self, run: Run, plan: Plan, watcher: Watcher, most_waiting: int = MOST_WAITING) -> None:
        # At the end of a tick all are computed that came in it: nobody would look again after a wait for more.
        super().__init__(run, replace(plan, queue_delay=0.0), watcher, most_waiting)
        self._due = False  # a flush is scheduled
        self._lonely = 0  # ticks in a row that brought one request
        self._unwaited = 0  # requests that may still be computed without waiting for the tick's end
        self._slow = 0.0  # slow runs of late
        self._rest = 0.0  # seconds of pauses that are due, because the machine is hot
        self._mark, self._since_mark = time.thread_time(), 0  # of this thread's computing, some runs ago
        self._most_elements = _most_elements(plan)
        self._prompt_elements = _prompt_elements(plan)
        self._aside = Scheduler(run, replace(plan, inline=False), watcher, most_waiting)

    @property
    def running(self) -> tuple[Batch, ...]:
        """Runs that are under way on threads; one on the loop's thread shows as a loop that stands still."""
        return self._aside.running

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return super().waiting + self._aside.waiting

    def slow_down(self, share: float) -> None:
        """Compute only this share of the time, from just above 0 to 1."""
        super().slow_down(share)
        self._aside.slow_down(share)

    async def compute(
        self, request: InferenceRequest, deadline: float | None, call: Call | None = None
    ) -> list[Array]:
        """Return the outputs of a request.

        Raises:
            RequestError: As `Scheduler.compute`.
        """
        if self._closed:
            raise NotFound("the model has just been unloaded")
        elements = elements_of(request.inputs)
        if elements > self._most_elements:
            return await self._aside.compute(request, deadline, call)
        if self._share >= 1:
            if elements <= self._prompt_elements:
                return self._run_now(request, call)
            if self._unwaited and not self._due:
                self._unwaited -= 1
                return self._run_now(request, call)
        loop = asyncio.get_running_loop()
        waiting = self._waiting(request, deadline, loop.create_future())
        waiting.call = call
        self._admit(waiting)
        if not self._due:
            self._due = True
            loop.call_soon(self._flush)
        try:
            answer: list[Array] = await waiting.future
        except asyncio.CancelledError:
            self._forget(waiting)
            self._check_emptied()
            raise
        return answer

    @property
    def prompt(self) -> bool:
        """Whether `at_once` is worth trying."""
        return self._prompt_elements > 0 and self._share >= 1 and not self._closed

    def at_once(self, request: InferenceRequest) -> list[Array] | None:
        """Return the outputs of a request that is computed sooner than others could be waited for; None for any other.

        Raises:
            RequestError: As `compute`.
        """
        return self._run_now(request) if elements_of(request.inputs) <= self._prompt_elements else None

    async def close(self) -> None:
        """Take no further request, and return when those that wait are answered and no run is under way."""
        await super().close()
        await self._aside.close()

    def abandon(self) -> None:
        """Take no further request and drop what waits; a run that is under way is left to itself."""
        super().abandon()
        self._aside.abandon()

    def _flush(self) -> None:
        """Compute what was parsed in this tick."""
        queue, until = self._queue, time.monotonic() + _TICK_SECONDS
        self._due = False
        while True:
            now = time.monotonic()
            batch, _ = queue.take(now)
            if queue.expired:
                self._tell_expired()
            if batch is None:
                break
            self._note_company(len(batch.pieces) + len(queue))
            done = compute(self._run, batch)
            queue.ended(batch, done.seconds)
            self._judge(done.seconds)
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

    def _run_now(self, request: InferenceRequest, call: Call | None = None) -> list[Array]:
        started = time.monotonic()
        arrays = self._run(request.outputs, request.inputs)
        seconds = time.monotonic() - started
        rows = rows_of(request.inputs) or 1 if self.plan.batchable else 1
        if call is not None:
            call.note(started, started, seconds, rows)
        self._ran(rows, seconds)
        self._watcher.waited(0.0)
        return arrays

    def _note_company(self, requests: int) -> None:
        """Learn how many requests come together: who is alone need not wait for others."""
        self._lonely = self._lonely + 1 if requests == 1 else 0
        if self._lonely >= _LONELY:
            self._lonely, self._unwaited = _LONELY - 1, _UNWAITED

    def _ran(self, rows: int, seconds: float) -> None:
        self._watcher.ran(rows, seconds)
        self._judge(seconds)

    def _judge(self, seconds: float) -> None:
        """Leave the loop's thread to the loop if runs turn out to be long."""
        self._slow *= _FORGET
        self._since_mark += 1
        if seconds < _SLOW_SECONDS:
            if self._since_mark >= _MARK_EVERY:
                self._mark, self._since_mark = time.thread_time(), 0
            return
        computed = time.thread_time() - self._mark
        self._mark, self._since_mark = self._mark + computed, 0
        if computed < _SLOW_SECONDS:
            return  # a neighbour had the core, not the model
        self._slow += 1
        slow = self._slow > _SLOW_RUNS or min(seconds, computed) > _HANGING_SECONDS
        if slow and self._most_elements >= 0:
            self._most_elements = self._prompt_elements = -1
            logger.warning(
                "runs take longer than calibrated; they go to threads from now on",
                extra={"fields": {"seconds": round(seconds, 4)}},
            )


def _prompt_elements(plan: Plan) -> int:
    """Return the elements of the largest request that gains less by company than waiting for it costs; 0 for none."""
    if not plan.costs:
        return 0
    costs, most, elements = Costs(plan.costs), 0, max(1, plan.costs[0][0])
    # What an element costs in the best of companies.
    best = min(seconds / max(1, count) for count, seconds in plan.costs) if plan.batch_rows > 1 else None
    while (seconds := costs.seconds(elements)) <= _PROMPT_SECONDS and elements < 1 << 40:
        if best is not None and seconds - best * elements > _COMPANY_SECONDS:
            break
        most, elements = elements, 2 * elements
    return most


def _most_elements(plan: Plan) -> int:
    """Return the elements of the largest request that still is computed within a tick."""
    costs, most = Costs(plan.costs), plan.costs[-1][0] if plan.costs else 1
    while plan.costs and costs.seconds(most) < _TICK_SECONDS and most < 1 << 40:
        most *= 2
    return most
