"""Windows: when one is open, and when it opens next.

Told by the clock of whoever asks, a node's or the operator's, which may be wrong: a window is about the price of a line or
the hours of a plant, never about trust. Pure.
Promises: a schedule or zone that cannot be read is refused by its name. Summer time is Debian cron's way: a start that the
clock skips happens at once after the gap, one that it repeats happens once.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from edgemodel.api.edge_node import Window
from edgemodel.api.meta import seconds
from edgemodel.errors import Stalled


def open_until(window: Window, now: datetime) -> datetime | None:
    """Return when the window closes; None when it is closed.

    Args:
        window: schedule, duration and time zone.
        now: an aware time.

    Raises:
        Stalled: ``InvalidSpec``.
    """
    # A start counts from the second it names: looking back from one second later finds the one that is now.
    began = _next(window, now + timedelta(seconds=1), reverse=True)
    if began is None:
        return None
    closes = began + timedelta(seconds=seconds(window.duration))
    return closes if closes > now else None


def opens_at(window: Window, now: datetime) -> datetime | None:
    """Return when the window opens next, after ``now``; None when it never does.

    Raises:
        Stalled: ``InvalidSpec``.
    """
    return _next(window, now, reverse=False)


def _next(window: Window, now: datetime, *, reverse: bool) -> datetime | None:
    if len(window.schedule.split()) != 5:
        raise _invalid(f"schedule {window.schedule!r}: expected five fields")
    try:
        zone = ZoneInfo(window.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _invalid(
            f"time zone {window.time_zone!r} is not known; expected one such as Europe/Vienna"
        ) from None
    try:
        # With UTC itself cronsim needs no care for summer time.
        local = now.astimezone(UTC if window.time_zone == "UTC" else zone)
        return next(CronSim(window.schedule, local, reverse=reverse)).astimezone(UTC)
    except CronSimError as error:
        raise _invalid(f"schedule {window.schedule!r}: {error}") from None
    except (StopIteration, OverflowError):
        return None


def _invalid(what: str) -> Stalled:
    return Stalled("InvalidSpec", f"window: {what}")
