"""From a temperature to the share of the time in which models may compute: the documented curve. Pure."""

import math

# Where the curve begins and ends in a zone that states no trip points.
BEGIN_CELSIUS = 75.0
END_CELSIUS = 90.0
# Distance to the trip points where it states them: the kernel slows the clock at `passive`, and switches the machine
# off at `critical`.
BELOW_PASSIVE = 10.0
BELOW_CRITICAL = 5.0
LEAST_SHARE = 0.25
# It has to be so much cooler before more is allowed again, or the limit would swing with each poll.
HYSTERESIS = 3.0


def share_allowed(celsius: float, begin: float, end: float) -> float:
    """Return the share of the time in which models may compute: 1 up to `begin`, linear to `LEAST_SHARE` at `end`."""
    if celsius <= begin:
        return 1.0
    if celsius >= end:
        return LEAST_SHARE
    return 1.0 - (1.0 - LEAST_SHARE) * (celsius - begin) / (end - begin)


def next_share(previous: float, celsius: float, begin: float, end: float) -> float:
    """Return the share after a reading: less at once, more only as if it were `HYSTERESIS` degrees warmer."""
    share = share_allowed(celsius, begin, end)
    if share <= previous:
        return share
    return max(previous, share_allowed(celsius + HYSTERESIS, begin, end))


def pause_after(seconds: float, share: float) -> float:
    """Return how long to rest after so many seconds of computing, so that computing is `share` of the time."""
    return 0.0 if share >= 1.0 else seconds * (1.0 / max(share, LEAST_SHARE) - 1.0)


def slowed(sessions: int, share: float) -> tuple[int, float]:
    """Return how many of a model's sessions may run, and which share of its time each computes.

    All together they compute `share` of what all sessions could: two sessions at 0.25 are one that rests half of the time.
    """
    share = min(1.0, max(share, LEAST_SHARE))
    allowed = max(1, math.ceil(sessions * share))
    return allowed, min(1.0, sessions * share / allowed)
