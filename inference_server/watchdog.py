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
from collections.abc import Callable
from dataclasses import dataclass

from inference_server.metrics import Metrics

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


@dataclass(slots=True)
class _Run:
    watch: "RunWatch"
    started: float
    rows: int
    told: bool = False


class RunWatch:
    """The runs of one model that are under way.

    Attributes:
        longest: Seconds that the longest run took that ended; what calibration measured is a good beginning.
    """

    __slots__ = ("_clock", "_runs", "longest", "model", "version")

    def __init__(
        self, model: str, version: str, runs: dict[int, _Run], clock: Callable[[], float], longest: float
    ) -> None:
        self.model = model
        self.version = version
        self.longest = longest
        self._runs = runs
        self._clock = clock

    def begin(self, rows: int) -> None:
        """Note that this thread begins a run of so many rows."""
        self._runs[threading.get_ident()] = _Run(self, self._clock(), rows)

    def end(self) -> None:
        """Note that this thread's run has come back, well or not."""
        run = self._runs.pop(threading.get_ident())
        seconds = self._clock() - run.started
        self.longest = max(self.longest, seconds)
        if run.told:
            logger.warning(
                "stuck run came back",
                extra={
                    "fields": {"model": self.model, "version": self.version, "seconds": round(seconds, 1)}
                },
            )


class Watchdog:
    """All runs of a server.

    Args:
        metrics: Where the number of stuck runs is shown.
        clock: Seconds that only grow.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._runs: dict[int, _Run] = {}  # by thread: it runs one at a time

    def of(self, model: str, version: str, longest: float = 0.0) -> RunWatch:
        """Return the watch of one model, whose runs took at most `longest` seconds until now."""
        return RunWatch(model, version, self._runs, self._clock, longest)

    @property
    def alive(self) -> bool:
        """Whether no run is stuck; asked by each liveness probe, cheap while few runs are under way."""
        return not self._stuck()

    def look(self) -> None:
        """Say once in the log what is stuck, with the stack of its thread."""
        stuck = self._stuck()
        self._metrics.stuck_runs.set(len(stuck))
        for thread, run in stuck:
            if not run.told:
                run.told = True
                logger.critical(
                    "stuck run",
                    extra={
                        "fields": {
                            "model": run.watch.model,
                            "version": run.watch.version,
                            "rows": run.rows,
                            "seconds": round(self._clock() - run.started, 1),
                            "limit_seconds": round(run_limit(run.watch.longest), 1),
                            "stack": _stacks().get(thread, "its thread has ended"),
                        }
                    },
                )

    def _stuck(self) -> list[tuple[int, _Run]]:
        now = self._clock()
        return [
            (thread, run)
            for thread, run in tuple(self._runs.items())
            if now - run.started > run_limit(run.watch.longest)
        ]


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
