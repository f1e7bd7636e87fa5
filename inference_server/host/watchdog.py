"""Notices what is stuck: a run inside ONNX Runtime that does not come back, an event loop that does not turn.

A run that takes longer than `run_limit` of the longest one its model ever took makes the server call itself dead
(`/v2/health/live` answers 503, and the kubelet starts the container again), with one line in the log that says
which model, since when, how many rows and where its thread stands. If it does come back, so does liveness.

An event loop that has not turned for `LOOP_SECONDS` ends the process with `EXIT_CODE`, every thread's stack in
the log: nothing on such a loop can answer a probe, and outside Kubernetes nobody asks. A run that never lets go
of the GIL stops this thread too; it is the kubelet's probe, unanswered, that finds that one.
"""

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from inference_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

# No run is called stuck before this, however fast the model was until now.
LEAST_SECONDS = 30.0
TIMES_THE_LONGEST = 20.0
LOOP_SECONDS = 60.0
# EX_SOFTWARE of sysexits.h; none of the exit codes of errors.py.
EXIT_CODE = 70

_TICK_SECONDS = 1.0
_STACK_CHARACTERS = 3000


def run_limit(longest: float) -> float:
    """Return the seconds after which a run counts as stuck, given the longest one that ended."""
    return max(LEAST_SECONDS, TIMES_THE_LONGEST * longest)


class Run(Protocol):
    """A run that is under way (`request_queue.Batch`)."""

    @property
    def taken(self) -> float:
        """Moment of `time.monotonic()` at which it began."""

    @property
    def rows(self) -> int:
        """Rows that it computes."""

    @property
    def thread(self) -> int:
        """Identity of its thread."""


class Watched(Protocol):
    """A model whose runs are looked at (`model_slot.ModelSlot`)."""

    @property
    def labels(self) -> tuple[str, str]:
        """Name and version."""

    @property
    def longest_run(self) -> float:
        """Seconds that its longest run took."""

    @property
    def running(self) -> Sequence[Run]:
        """Runs that are under way."""


class Watchdog:
    """Looks at the runs of a server's models.

    Args:
        metrics: Where the number of stuck runs is shown.
        clock: `time.monotonic`, whose moments runs are marked with.

    Attributes:
        alive: Whether no run was stuck at the last look.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.alive = True
        self._metrics = metrics
        self._clock = clock
        self._stuck: dict[tuple[int, float], Watched] = {}  # by thread and beginning: what was told already

    def look(self, models: Iterable[Watched]) -> None:
        """Find what is stuck; say it once in the log, with the stack of its thread, and once if it came back."""
        now = self._clock()
        stuck: dict[tuple[int, float], Watched] = {}
        for model in models:
            limit = run_limit(model.longest_run)
            for run in model.running:
                if now - run.taken > limit:
                    key = (run.thread, run.taken)
                    stuck[key] = model
                    if key not in self._stuck:
                        _tell(model, run, now - run.taken, limit)
        for key, model in self._stuck.items():
            if key not in stuck:
                name, version = model.labels
                logger.warning(
                    "stuck run came back",
                    extra={"fields": {"model": name, "version": version, "seconds": round(now - key[1], 1)}},
                )
        self._stuck = stuck
        self.alive = not stuck
        self._metrics.stuck_runs.set(len(stuck))


def _tell(model: Watched, run: Run, seconds: float, limit: float) -> None:
    name, version = model.labels
    logger.critical(
        "stuck run",
        extra={
            "fields": {
                "model": name,
                "version": version,
                "rows": run.rows,
                "seconds": round(seconds, 1),
                "limit_seconds": round(limit, 1),
                "stack": _stacks().get(run.thread, "its thread has ended"),
            }
        },
    )


def _stacks() -> dict[int, str]:
    """Return where each thread of this process stands, by its identity."""
    return {
        thread: "".join(traceback.format_stack(frame))[-_STACK_CHARACTERS:]
        for thread, frame in sys._current_frames().items()  # noqa: SLF001 — documented, in spite of its name
    }


class LoopWatch:
    """A thread that ends the process when the event loop does not turn.

    Args:
        seconds: How long it may stand still.
        tick: Seconds between two looks.
        end: Ends the process, given the exit code.
    """

    def __init__(
        self,
        seconds: float = LOOP_SECONDS,
        tick: float = _TICK_SECONDS,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self._most = seconds / tick
        self._tick = tick
        self._end = end
        self._beaten = True
        self._done = threading.Event()

    def start(self) -> None:
        """Begin to watch; the loop has to `beat` from now on, at least each few seconds."""
        threading.Thread(target=self._watch, name="loop-watch", daemon=True).start()

    def beat(self) -> None:
        """Say, on the loop, that it turns."""
        self._beaten = True

    def stop(self) -> None:
        """Watch no longer."""
        self._done.set()

    def _watch(self) -> None:
        # Looks are counted, not seconds: a process that was stopped (SIGSTOP, a frozen cgroup) for an hour has
        # looked once in that hour, and its loop gets as long as any other to beat.
        missed = 0
        while not self._done.wait(self._tick):
            if self._beaten:
                self._beaten, missed = False, 0
                continue
            missed += 1
            if missed >= self._most:
                self._report(missed)
                self._end(EXIT_CODE)
                return

    def _report(self, missed: int) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        stacks = {str(names.get(thread, thread)): stack for thread, stack in _stacks().items()}
        logger.critical(
            "event loop is stuck; ending the process",
            extra={
                "fields": {
                    "seconds": round(missed * self._tick, 1),
                    "exit_code": EXIT_CODE,
                    "stacks": stacks,
                }
            },
        )
