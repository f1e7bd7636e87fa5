"""Which pods of a model are much slower than the others, and what weight each gets for it. Pure; time is given.

HAProxy's ``leastconn`` gives an idle pod the next request whatever its weight, so a slow one always has one, and a caller in
six waits for it. Promises
- A pod whose answers take more than ``SLOW`` times what the others' do, for ``LOOKS`` looks, gets nothing while the others
  have room; a weight that falls with the square of its slowness once they have not, or where only one other is left.
- It is tried again with a request or a few, rarely enough to stay clear of the 99th percentile, and has its weight back
  after ``TRIALS`` that went well.
- Of n pods n/2 at most are slow; pods that are alike all have ``FULL``.

HAProxy tells of each server the mean of its last 512 response times, in whole ms, and the longest one since it was cleared.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

FULL = 64
"""A server's weight."""
SLOW = 3.0
MARGIN_MS = 5.0
"""Less than this is no slowness."""
LOOKS = 3
TRIALS = 3
WINDOW_SECONDS, FARTHEST_SECONDS = 3.0, 60.0
"""What a pod's mean is taken of: at least the first, and the second at most where there are few answers."""
FEWEST = 20
"""Answers, below which nothing is said of a pod."""
SURE_MS, SURE = 5.0, 0.5
"""How wide the bounds of a mean may be, in ms or as a part of it, before it is taken of more answers."""
SAMPLES = 512
"""Response times in HAProxy's mean (TIME_STATS_SAMPLES of its defaults.h)."""
TRIAL_SECONDS, TRIAL_REQUESTS, FARTHEST_TRIAL_SECONDS = 4.0, 300, 60.0
"""A failed trial is followed by another after so long and so many requests of the model, or after the last at any rate."""
NEXT_TRIAL_SECONDS = 0.3
"""The same after one that went well."""
UNEASY_SECONDS = 10.0
"""How long slow pods help after another one failed: it may be gone, and the next one with it."""
SOON_SECONDS = 2.0
"""How long a trial without a request is looked at more often."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What HAProxy tells of one server that may get requests."""

    name: str
    weight: int
    answers: int
    """Since its counters began."""
    inflight: int
    mean_ms: int
    longest_ms: int
    """Since the longest ones were cleared."""
    failures: int = 0
    """Connections that failed, requests that were asked again elsewhere; since its counters began."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What to do."""

    weights: dict[str, int]
    """Of all servers."""
    clear: bool = False
    """Forget the longest response times first: a trial begins."""
    soon: bool = False
    """Look again soon."""


@dataclass(slots=True)
class _Pod:
    looks: deque[tuple[float, int, int]] = field(default_factory=deque)
    """Time, answers, mean."""
    low_ms: float | None = None
    """The mean of the last seconds is no less."""
    mean_ms: float = 0.0
    """As it was when there were enough answers last."""
    votes: int = 0
    failures: int = 0
    slow: float | None = None
    """How many times slower than the others; None: it is not."""
    next_trial: float = 0.0
    told: int = 0
    """Requests of the model at the last trial."""
    trial: float | None = None
    """When the trial that is under way began."""
    before: int = 0
    longest: int = 0
    passed: int = 0


def mean_between(before: tuple[int, int], after: tuple[int, int]) -> tuple[float, float]:
    """Return the bounds of the mean response time of the answers between two looks, in ms.

    Args:
        before: answers until then, and HAProxy's mean, which is rounded up.
        after: the same later; there are more answers.
    """
    (first, first_mean), (last, last_mean) = before, after
    # The part of the older mean that is still in the newer one: a plain mean at first, then an exponential one.
    kept = min(first, SAMPLES) / min(last, SAMPLES) * (1 - 1 / SAMPLES) ** max(0, last - max(first, SAMPLES))
    new = 1 - kept
    low = (last_mean - 1 - first_mean * kept) / new
    high = (last_mean - max(0, first_mean - 1) * kept) / new
    return max(0.0, low), max(0.0, high)


class Pace:
    """The pods of one model's active version, look by look."""

    def __init__(self) -> None:
        self._pods: dict[str, _Pod] = {}
        self._load = 0.0
        self._uneasy = 0.0
        """Until then."""

    @property
    def slow(self) -> tuple[str, ...]:
        """Names of the slow ones."""
        return tuple(name for name, pod in self._pods.items() if pod.slow is not None)

    def look(self, now: float, seen: Sequence[Seen], *, waiting: int = 0, limit: int | None = None) -> Turn:
        """Take in one look and return what to do.

        Args:
            now: seconds, of any clock that does not go back.
            seen: the servers that are up and are to have requests.
            waiting: requests for which no server was free.
            limit: how many may wait; None if none ever waits.
        """
        self._pods = {one.name: self._pods.get(one.name) or _Pod() for one in seen}
        if len(seen) <= 1:  # slow is who has somebody to be compared with
            self._pods = {}
            return Turn({one.name: FULL for one in seen})
        for one in seen:
            self._remember(now, one)
        total = sum(one.answers for one in seen)
        self._judge(now, seen, total)
        quick = [one for one in seen if self._pods[one.name].slow is None]
        busy = (sum(one.inflight for one in quick) + waiting) / len(quick)
        self._load += (busy - self._load) / 2
        crowded = limit is not None and 2 * waiting >= max(1, limit)
        weights, clear, soon = {one.name: FULL for one in seen}, False, False
        for one in seen:
            pod = self._pods[one.name]
            if pod.slow is None:
                continue
            self._try(now, one, pod, total)
            if pod.slow is None:
                continue
            if pod.trial is None and self._due(now, pod, total):
                pod.trial, pod.before, pod.longest, clear = now, one.answers + one.inflight, 0, True
            taking = pod.trial is not None and one.answers + one.inflight <= pod.before
            soon = soon or (pod.trial is not None and now - pod.trial < SOON_SECONDS)
            # The last quick one may die before the next look: then there must be another.
            needed = crowded or len(quick) == 1 or now < self._uneasy or self._load >= max(1.5, pod.slow / 2)
            weights[one.name] = max(1, round(FULL / pod.slow**2)) if taking or needed else 0
        return Turn(weights, clear, soon)

    def _remember(self, now: float, one: Seen) -> None:
        pod = self._pods[one.name]
        if pod.looks and one.answers < pod.looks[-1][1]:
            # Another worker, which counts from the beginning.
            pod.looks.clear()
            pod.before = pod.told = 0
            pod.trial = None
        if pod.looks and one.failures > pod.failures:
            self._uneasy = now + UNEASY_SECONDS
        pod.failures = one.failures
        fresh = not pod.looks or one.answers > pod.looks[-1][1]
        pod.looks.append((now, one.answers, one.mean_ms))
        while len(pod.looks) > 1 and self._older(now, pod):
            pod.looks.popleft()
        bounds = self._bounds(pod.looks[0], pod.looks[-1])
        pod.low_ms = None
        if bounds is not None:
            pod.mean_ms = sum(bounds) / 2
            pod.low_ms = bounds[0] if fresh else None

    @staticmethod
    def _bounds(before: tuple[float, int, int], after: tuple[float, int, int]) -> tuple[float, float] | None:
        return mean_between(before[1:], after[1:]) if after[1] - before[1] >= FEWEST else None

    def _older(self, now: float, pod: _Pod) -> bool:
        """Tell whether the oldest look can be spared."""
        second = pod.looks[1]
        if second[0] <= now - FARTHEST_SECONDS:
            return True
        bounds = self._bounds(second, pod.looks[-1])
        if bounds is None or second[0] > now - WINDOW_SECONDS:
            return False
        return bounds[1] - bounds[0] <= max(SURE_MS, SURE * sum(bounds) / 2)

    def _judge(self, now: float, seen: Sequence[Seen], total: int) -> None:
        known = [self._pods[one.name] for one in seen]
        for pod in known:
            usual = self._usual_ms()
            if pod.slow is not None or pod.low_ms is None or usual is None:
                continue
            pod.votes = pod.votes + 1 if pod.low_ms > SLOW * usual + MARGIN_MS else 0
            if pod.votes >= LOOKS:
                pod.slow = max(SLOW, pod.mean_ms / max(1.0, usual))
                pod.votes = pod.passed = 0
                pod.next_trial, pod.told = now + TRIAL_SECONDS, total
        slow = sorted((pod for pod in known if pod.slow is not None), key=lambda pod: pod.slow or 0.0)
        for pod in slow[: max(0, len(slow) - len(known) // 2)]:
            self._restore(pod)

    def _usual_ms(self) -> float | None:
        """Return the mean of the middle one of those that are not slow; None where nothing is known of them."""
        means = sorted(pod.mean_ms for pod in self._pods.values() if pod.slow is None and pod.mean_ms > 0)
        return means[(len(means) - 1) // 2] if means else None

    @staticmethod
    def _due(now: float, pod: _Pod, total: int) -> bool:
        if now < pod.next_trial:
            return False
        enough = pod.passed > 0 or total - pod.told >= TRIAL_REQUESTS
        return enough or now >= pod.next_trial + FARTHEST_TRIAL_SECONDS

    def _try(self, now: float, one: Seen, pod: _Pod, total: int) -> None:
        """Go on with a trial, and end it once it had an answer."""
        if pod.trial is None:
            return
        if now > pod.trial:  # HAProxy had cleared it by then
            pod.longest = max(pod.longest, one.longest_ms)
        if one.answers <= pod.before:
            return
        pod.trial, pod.told = None, total
        # Those that are busy answer later, which makes a slow one no quicker.
        usual = self._usual_ms() or 0.0
        if pod.longest > SLOW * usual / max(1.0, self._load) + MARGIN_MS:
            pod.passed, pod.next_trial = 0, now + TRIAL_SECONDS
            pod.slow = max(SLOW, pod.longest / max(1.0, usual))
            return
        pod.passed, pod.next_trial = pod.passed + 1, now + NEXT_TRIAL_SECONDS
        if pod.passed >= TRIALS:
            self._restore(pod)

    @staticmethod
    def _restore(pod: _Pod) -> None:
        pod.slow, pod.trial, pod.votes, pod.passed = None, None, 0, 0
        # What it answered while it was slow is no part of what is compared from now on.
        if pod.looks:
            last = pod.looks[-1]
            pod.looks.clear()
            pod.looks.append(last)
        pod.low_ms, pod.mean_ms = None, 0.0
