"""Finds, in a fraction of a second at warm-up, how a model is best computed on this machine.

Promises to end within its budget plus a few runs, and two more loads of the model where these are quick; never to fail: a
model that refuses made-up inputs is computed request by request; and that a value which the administrator set is kept. What
it finds is a `Plan`.

A first axis is a batch axis if the model leaves it open in all inputs and outputs and two rows computed together give what
each gives alone: same sizes, whole numbers and texts equal, others within `TOLERANCE` of the output's largest magnitude.
Models that scale by what the whole batch contains (dynamic quantisation) fail this, and rightly.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from inference_server.engine.example_inputs import example, shape_of
from inference_server.engine.plan import Plan
from inference_server.errors import RequestError
from inference_server.messages import ModelMetadata
from inference_server.tensors import DYNAMIC, Array, TensorSpec, numbers

logger = logging.getLogger(__name__)

TOLERANCE = {"FP64": 1e-4, "FP32": 1e-4, "FP16": 1e-2, "BF16": 1e-2}
"""Largest difference between a row computed alone and with others, as a share of the output's largest magnitude."""
BUDGET = 0.4
"""Seconds that measuring may take."""
INLINE_SECONDS = 0.0003
"""A run up to this is computed on the event loop's thread; handing it to another takes 30 to 60 µs, and more under load."""
RELOAD_SECONDS = 0.1
"""A model that takes longer to load is not loaded again to try other threads; it gets as many sessions as CPUs."""
MOST_ROWS = 64
_PIECE_SECONDS = 0.005  # larger requests are computed in pieces of about so long
_LONG_SECONDS = 0.25  # a batch that takes longer is none: the first in it would wait too long
_QUICK_SECONDS = 0.001  # sizes go by twos; beyond this by fours where …
_STEEP = 0.75  # … a row's price has fallen to less than this share of the size before
_GAIN = 0.98  # a larger batch must cost less than this share a row
_REPEATS = 6
_AT_ONCE = 3  # runs of each thread when several compute at the same time
_SHARE = 8  # no size gets more than this part of the budget beyond its first run
_SEED = 20


Clock = Callable[[], float]


class Calibrated(Protocol):
    """What calibration needs of a model (`inference_server.engine.model.Model`)."""

    @property
    def metadata(self) -> ModelMetadata:
        """Inputs and outputs."""

    @property
    def threads(self) -> int:
        """Threads of one run now."""

    @property
    def open_size(self) -> int | None:
        """A size with which the model runs for axes that it leaves open; None when none was found."""

    @property
    def has_loops(self) -> bool:
        """Whether the size of a request does not tell its price; such a model is never computed inline."""

    @property
    def load_seconds(self) -> float:
        """Time that opening it again will probably take."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """Compute; blocks."""

    def reopen(self, threads: int) -> None:
        """Use so many threads a run from now on."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """What the administrator decided; None leaves it to calibration.

    Attributes:
        threads: Threads of one run.
        sessions: Runs at the same time.
        batch_rows: Most rows that several requests share.
        queue_delay: Most seconds that a request waits for others.
    """

    threads: int | None = None
    sessions: int | None = None
    batch_rows: int | None = None
    queue_delay: float = 0.0


def uncalibrated(pinned: Pinned, cpus: int) -> Plan:
    """Return the plan of a model that nothing was measured of: no batches, one run on all CPUs."""
    sessions = pinned.sessions or 1
    return Plan(threads=pinned.threads or max(1, cpus // sessions), sessions=sessions)


def calibrate(
    model: Calibrated,
    pinned: Pinned,
    cpus: int,
    budget: float = BUDGET,
    clock: Clock = time.perf_counter,
    work: Clock = time.thread_time,
) -> Plan:
    """Measure a model and return how to compute it; the model is left with that number of threads.

    Args:
        model: Opened with `pinned.threads` threads, or one.
        pinned: What is not to be found.
        cpus: CPUs that this process may keep busy.
        budget: Seconds that measuring may take; more, up to one, for a model whose load took longer.
        clock: Seconds that pass.
        work: Seconds that the calling thread computes.
    """
    budget = max(budget, min(model.load_seconds, 1.0))
    measure = _Measurement(model, clock, work, budget)
    size = model.open_size
    alone = None if size is None else measure.fastest(size, 1)
    if size is None or alone is None:
        plan = uncalibrated(pinned, cpus)
        if plan.threads != model.threads:
            model.reopen(plan.threads)
        return plan
    # The probe takes four runs. Where these are slow, batches gain nothing that their first request would not pay for.
    row_bytes = probe_rows(model, size) if alone <= budget / 6 else 0
    batchable = row_bytes > 0
    costs, best = measure.costs(size, alone, MOST_ROWS if batchable else 1)
    if pinned.batch_rows not in (None, 1) and not batchable:
        logger.warning("the first axis is no batch axis: requests are computed one by one")
    plan = Plan(
        threads=model.threads,
        sessions=pinned.sessions or 1,
        batchable=batchable,
        batch_rows=(pinned.batch_rows or best) if batchable else 1,
        batch_elements=0 if pinned.batch_rows else measure.elements(size, best),
        piece_rows=_piece_rows(costs, best) if batchable else 0,
        row_bytes=row_bytes,
        queue_delay=pinned.queue_delay,
        costs=tuple((elements, seconds) for _, elements, seconds in costs),
    )
    full = _seconds(costs, plan.batch_rows)
    may_inline = pinned.sessions in (None, 1) and not model.has_loops
    if may_inline and full <= INLINE_SECONDS:
        return replace(plan, inline=True, sessions=1)
    if may_inline and costs[0][2] <= INLINE_SECONDS and cpus == 1:
        # With one CPU a thread buys nothing: smaller batches, and none of its cost.
        within = max(rows for rows, _, seconds in costs if seconds <= INLINE_SECONDS)
        return replace(plan, inline=True, sessions=1, batch_rows=min(plan.batch_rows, within))
    return measure.parallel(plan, pinned, cpus, size)


def probe_rows(model: Calibrated, size: int) -> int:
    """Return the bytes of a row, inputs and outputs, if a first axis is a batch axis (see the module's text), else 0.

    Args:
        model: The model.
        size: Size of open axes that it accepts.
    """
    specs = model.metadata
    if not specs.inputs or any(
        not spec.shape or spec.shape[0] != DYNAMIC for spec in (*specs.inputs, *specs.outputs)
    ):
        return 0
    outputs = [spec.name for spec in specs.outputs]
    together = example(specs.inputs, 3, size, _SEED)
    try:
        whole = model.run(outputs, together)
        for row in range(3):
            alone = model.run(outputs, {name: array[row : row + 1] for name, array in together.items()})
            if not all(
                map(_same_rows, specs.outputs, alone, [array[row : row + 1] for array in whole], whole)
            ):
                return 0
    except RequestError:
        return 0
    row_bytes = sum(array.nbytes for array in (*together.values(), *whole)) // 3
    return max(1, row_bytes)


def _same_rows(spec: TensorSpec, alone: Array, row: Array, whole: Array) -> bool:
    if alone.shape != row.shape or whole.shape[0] != 3:
        return False
    tolerance = TOLERANCE.get(spec.datatype)
    if tolerance is None:
        return bool(np.array_equal(alone, row))
    alone, row, whole = (numbers(array, spec.datatype) for array in (alone, row, whole))
    allowed = tolerance * float(np.nanmax(np.abs(whole), initial=0.0))
    return bool(np.allclose(alone, row, rtol=0, atol=allowed, equal_nan=True))


class _Measurement:
    """The clock and the model of one calibration."""

    def __init__(self, model: Calibrated, clock: Clock, work: Clock, budget: float) -> None:
        self._model = model
        self._clock = clock
        self._work = work
        self._budget = budget
        self._until = clock() + budget
        self._outputs = [spec.name for spec in model.metadata.outputs]

    def costs(self, size: int, alone: float, most_rows: int) -> tuple[list[tuple[int, int, float]], int]:
        """Return `(rows, elements, seconds)` of runs with 1, 2, 4 … rows, and the best number of rows for throughput.

        Args:
            size: Of open axes.
            alone: Seconds of a run with one row.
            most_rows: Where to end.
        """
        costs: list[tuple[int, int, float]] = []
        rows, best, best_cost = 1, 1, float("inf")
        while rows <= most_rows:
            seconds = alone if rows == 1 else self.fastest(size, rows)
            if seconds is None:
                break
            costs.append((rows, self.elements(size, rows), seconds))
            steep = seconds / rows < _STEEP * best_cost  # as is a first one, of which nothing is known
            if seconds / rows < _GAIN * best_cost:
                best, best_cost = rows, seconds / rows
            step = 4 if steep and seconds >= _QUICK_SECONDS and 4 * rows <= most_rows else 2
            # What the next size would take, if it saved nothing, must fit.
            if step * seconds > _LONG_SECONDS or self._clock() + step * seconds > self._until:
                break
            if rows >= 4 * best:
                break
            rows *= step
        least = min((seconds / rows for rows, _, seconds in costs), default=0.0)
        return costs, next((rows for rows, _, seconds in costs if seconds / rows * _GAIN <= least), 1)

    def parallel(self, plan: Plan, pinned: Pinned, cpus: int, size: int) -> Plan:
        """Return the plan with the threads and sessions that compute most on so many CPUs."""
        model = self._model
        if pinned.threads is not None or pinned.sessions is not None or cpus == 1:
            sessions = pinned.sessions or max(1, cpus // model.threads)
            threads = pinned.threads or max(1, cpus // sessions)
            if threads != model.threads:
                model.reopen(threads)
            return replace(plan, threads=threads, sessions=sessions)
        if model.load_seconds > RELOAD_SECONDS:
            return replace(plan, sessions=cpus)
        side_by_side = self._at_once(size, plan.batch_rows, cpus)
        model.reopen(cpus)
        self.fastest(size, plan.batch_rows, 1)
        spread = self._at_once(size, plan.batch_rows, 1)
        elements = self.elements(size, plan.batch_rows)
        # One run on all CPUs answers sooner when little is asked: it may cost a little of what is possible at most.
        if spread * cpus <= side_by_side * 1.02:
            return replace(plan, threads=cpus, sessions=1, costs=_scaled(plan.costs, elements, spread))
        model.reopen(1)
        self.fastest(size, plan.batch_rows, 1)
        return replace(plan, threads=1, sessions=cpus, costs=_scaled(plan.costs, elements, side_by_side))

    def elements(self, size: int, rows: int) -> int:
        """Return the number of elements in an example's inputs."""
        return sum(math.prod(shape_of(spec, rows, size)) for spec in self._model.metadata.inputs)

    def fastest(self, size: int, rows: int, repeats: int = _REPEATS) -> float | None:
        """Return the seconds of the fastest of some runs, None when the model refuses."""
        inputs = example(self._model.metadata.inputs, rows, size, _SEED)
        # Of a run on one thread, the time of this thread's own computing: a neighbour on the same core must not look like
        # the price of a larger batch.
        clock = self._work if self._model.threads == 1 else self._clock
        best, until = None, min(self._until, self._clock() + self._budget / _SHARE)
        for number in range(repeats):
            started, begun = self._clock(), clock()
            try:
                self._model.run(self._outputs, inputs)
            except RequestError:
                return None
            took, now = clock() - begun, self._clock()
            best = min(best or float("inf"), took)
            # The first run of a size pays for its memory; the second is told from it even when time is short.
            if now + (now - started) > (until if number else self._until):
                break
        return best

    def _at_once(self, size: int, rows: int, sessions: int) -> float:
        """Return the seconds that each of so many runs takes while all are under way."""
        took: list[float] = []

        def runs() -> None:
            started = self._clock()
            for _ in range(_AT_ONCE):
                self._model.run(self._outputs, inputs)
            took.append((self._clock() - started) / _AT_ONCE)

        inputs = example(self._model.metadata.inputs, rows, size, _SEED)
        threads = [threading.Thread(target=runs) for _ in range(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(took)


def _seconds(costs: Sequence[tuple[int, int, float]], rows: int) -> float:
    """Return what a run of so many rows takes, in proportion where that was not measured."""
    known, _, seconds = min(costs, key=lambda cost: abs(cost[0] - rows))
    return seconds * max(1.0, rows / known)


def _piece_rows(costs: Sequence[tuple[int, int, float]], best: int) -> int:
    """Return the rows of a piece of a large request: what takes some milliseconds, and no less than is efficient."""
    rows, _, seconds = costs[-1]
    return max(best, rows, int(rows * _PIECE_SECONDS / max(seconds, 1e-6)))


def _scaled(
    costs: tuple[tuple[int, float], ...], elements: int, seconds: float
) -> tuple[tuple[int, float], ...]:
    """Return the costs as they are with the threads that were chosen, given one new measurement."""
    measured = next((old for known, old in costs if known == elements), None)
    factor = seconds / measured if measured and seconds < float("inf") else 1.0
    return tuple((known, old * factor) for known, old in costs)
