"""What a run of the model costs, by the number of elements in its inputs.

Pure: knows what calibration measured and what it is told of runs since, and reads no clock. Promises an estimate that
follows a machine that gets slower (heat, neighbours) within some ten runs and is not thrown off by a single outlier.
"""

from bisect import bisect_left

# Weight of the newest run in the correction, and how far one run may move it.
_WEIGHT = 0.1
_STEP = 4.0


class Costs:
    """Seconds of a run as a function of its elements: measured points, lines between them, one factor over all.

    Args:
        points: `(elements, seconds)` by rising elements; () when nothing was measured yet.
    """

    def __init__(self, points: tuple[tuple[int, float], ...] = ()) -> None:
        self._elements = [elements for elements, _ in points]
        self._seconds = [seconds for _, seconds in points]
        self._factor = 1.0
        self._spread = 0.0  # mean distance of a run from its estimate, as a share of it

    @property
    def usual_error(self) -> float:
        """By which share of the estimate a run usually misses it."""
        return self._spread

    def at_most(self, elements: int) -> float:
        """Return what a run takes unless it is unusually slow: the estimate and twice its usual error."""
        return self.seconds(elements) * (1 + 2 * self._spread)

    def seconds(self, elements: int) -> float:
        """Return the estimate for a run with so many elements; 0 when nothing is known."""
        known, seconds = self._elements, self._seconds
        if not known:
            return 0.0
        right = bisect_left(known, elements)
        if right == 0:
            return seconds[0] * self._factor
        if right == len(known):
            if right == 1:
                return seconds[0] * self._factor * elements / known[0]
            right -= 1
        left = right - 1
        slope = max(0.0, (seconds[right] - seconds[left]) / (known[right] - known[left]))
        return max(seconds[left] + slope * (elements - known[left]), 0.0) * self._factor

    def observe(self, elements: int, seconds: float) -> None:
        """Learn from a run that took so long."""
        known = self._elements
        if not known or elements > 2 * known[-1] or 2 * elements < known[0]:
            place = bisect_left(known, elements)
            known.insert(place, max(1, elements))
            self._seconds.insert(place, seconds / self._factor)
            return
        ratio = seconds * self._factor / max(self.seconds(elements), 1e-9)
        ratio = min(max(ratio, self._factor / _STEP), self._factor * _STEP)
        self._spread += _WEIGHT * (abs(ratio / self._factor - 1) - self._spread)
        self._factor += _WEIGHT * (ratio - self._factor)
