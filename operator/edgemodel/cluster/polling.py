"""When one image is looked at again: at each poll, soon after a refusal, ever later after a failure.

All times are seconds of one monotonic clock, given by the caller; nothing here waits.
"""

from collections.abc import Callable

FIRST_AFTER_REFUSAL = 15.0
"""Publishers push first and sign a moment later: a refused artifact is looked at again this soon, then
doubling.
"""
LONGEST_AFTER_REFUSAL = 300.0
"""No look after a refusal is further away than this, nor than the poll interval."""
FIRST_AFTER_FAILURE = 5.0
LONGEST_AFTER_FAILURE = 300.0
_JITTER = 0.1


class Polling:
    """The look-again times of one model."""

    def __init__(self, *, spread: Callable[[], float]) -> None:
        """``spread`` returns a random number in [-1, 1]: what was created together is not polled together."""
        self._spread = spread
        self.due = float("-inf")
        """When to look; infinite when only a change of the spec asks for it."""
        self._found_at = float("-inf")
        self._interval = float("inf")
        self._jitter = 0.0
        self._failures = 0
        self._refusals = 0
        self._refused_digest = ""

    def found(self, now: float, digest: str, interval: float) -> None:
        """The image was resolved and read.

        Args:
            now: the time.
            digest: what it stood for.
            interval: the poll interval; 0 means never again.
        """
        self._failures = 0
        self._found_at = now
        self._interval = interval or float("inf")
        self._jitter = 1 + _JITTER * self._spread()
        self.due = now + self._interval * self._jitter
        self._refusals = self._refusals + 1 if digest == self._refused_digest else 0

    def judged(self, digest: str, *, refused: bool) -> None:
        """The artifact was judged under today's policies; said any number of times between two looks."""
        if self._failures:
            return  # the registry's trouble sets the pace until it is over
        if not refused:
            self._refused_digest, self._refusals = "", 0
            self.due = max(self.due, self._found_at + self._interval * self._jitter)
            return
        self._refused_digest = digest
        wait = min(
            FIRST_AFTER_REFUSAL * 2.0 ** min(self._refusals, 30), LONGEST_AFTER_REFUSAL, self._interval
        )
        self.due = min(self.due, self._found_at + wait * self._jitter)

    def failed(self, now: float, retry_after: float | None = None) -> None:
        """The registry failed, or asked to be left alone for ``retry_after`` seconds."""
        self._failures += 1
        wait = min(FIRST_AFTER_FAILURE * 2.0 ** min(self._failures - 1, 30), LONGEST_AFTER_FAILURE)
        # Jitter only upwards where the other side said how long.
        wait = max(wait * (1 + _JITTER * self._spread()), min(retry_after or 0.0, 3600.0))
        self.due = now + wait
