"""Wait for a condition with a deadline, never for a length of time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NotInTime(AssertionError):
    """The condition did not come true before its deadline."""


def until(check: Callable[[], T | None], what: str, *, timeout: float = 60.0, every: float = 0.1) -> T:
    """Return the first truthy result of ``check``.

    Args:
        check: called again and again; an AssertionError or LookupError counts as not yet.
        what: completes "waited … s for"; goes into the error.
        timeout: seconds after which NotInTime is raised, naming the last result.
        every: seconds between calls.
    """
    end = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            result = check()
            if result:
                return result
            last = result
        except (AssertionError, LookupError) as error:
            last = error
        if time.monotonic() >= end:
            raise NotInTime(f"waited {timeout:.0f} s for {what}; last seen: {last!r}")
        time.sleep(every)
