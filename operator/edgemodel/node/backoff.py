"""How long to wait before the next try, so that a fleet that failed together does not come back together.

Full jitter: any time up to a ceiling that doubles. Of the usual rules it puts the least load on who is being waited for.
Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import hashlib
import random
from collections.abc import Callable


class Backoff:
    """Waits of one piece of work; forgotten when it succeeds.

    Args:
        first: ceiling of the first wait in seconds.
        longest: no ceiling is higher.
        fraction: gives a number from 0 to below 1.
    """

    def __init__(
        self, first: float = 2.0, longest: float = 300.0, *, fraction: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._fraction = fraction
        self._failures = 0

    def next(self, retry_after: float | None = None) -> float:
        """Return the seconds to wait after one more failure.

        Args:
            retry_after: the other side's own wish; kept to, and the jitter comes on top.
        """
        # Not beyond: 2.0 ** 1024 is an error.
        ceiling = min(self._longest, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return (retry_after or 0.0) + ceiling * self._fraction()

    def reset(self) -> None:
        """Begin anew: it worked."""
        self._failures = 0


def spread(seconds: float, *, fraction: Callable[[], float] = random.random) -> float:
    """Return a first delay, for what a whole fleet learns at the same moment."""
    return seconds * fraction()


def share(name: str) -> float:
    """Return a number from 0 to below 1 that a name always has, and that lies anywhere: the place of one in a fleet."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / (1 << 48)
