"""Looks at the sockets a little longer before the event loop sleeps, where the next request is about to come.

A core that falls asleep and is woken takes 50 to 100 µs for it in a virtual machine, as long as a small inference. A client
that asks again as soon as it has its answer does so within that time: a loop that is still awake answers so much sooner.
Promises to cost nothing but a look at the clock where requests come at a slower pace; to give up after `longest` seconds
each time, and to try more and more rarely where that is in vain (the client has the same core, or thinks longer); and to
stay out of the way of whatever computes on a thread. The price is a core that is busy between the requests of such a
client. Figures: docs/adr/0025-busy-poll.md.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

CLOSE_SECONDS = 0.001
"""Answers further apart than this are no closed loop whose next turn is worth waiting for."""
MOST_SKIPPED = 63
"""After looks in vain so many answers go by, at most, before the next try."""
BUSY_ANSWERS = 8
"""So many requests in a row that were there at the first look: the loop has no time to sleep anyway."""


class Loop(Protocol):
    """What is needed of an event loop."""

    def call_soon(self, callback: Callable[[], None]) -> Any:
        """Call it in the loop's next turn, which then looks at the sockets and does not sleep."""


class BusyPoll:
    """Keeps an event loop awake after answers.

    Args:
        loop: The loop; all calls come on its thread.
        idle: Whether nothing is being computed elsewhere that could use this core.
        longest: Seconds that it is kept awake after one answer, at most.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        loop: Loop,
        idle: Callable[[], bool],
        longest: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._idle = idle
        self._longest = longest
        self._clock = clock
        self._last = 0.0  # moment of the last answer that was looked at
        self._until: float | None = None  # the loop is kept awake until then; None: it is not
        self._turns = 0  # of the loop since the last answer
        self._skip = 0  # answers to let go by
        self._penalty = 0  # answers to let go by after the next look in vain
        self._busy = 0  # requests in a row that were there at once

    def answered(self) -> None:
        """Note that an answer was handed to the transport."""
        if self._skip:
            self._skip -= 1
            return
        now = self._clock()
        last, self._last = self._last, now
        if self._until is None:
            if now - last >= CLOSE_SECONDS:
                return
            self._loop.call_soon(self._turn)
        else:
            self._penalty >>= 1
            self._busy = self._busy + 1 if self._turns <= 1 else 0
            if self._busy >= BUSY_ANSWERS:
                self._busy, self._skip, self._until = 0, MOST_SKIPPED, None
                return
        self._turns = 0
        self._until = now + self._longest

    def _turn(self) -> None:
        if self._until is None:
            return
        if not self._idle():
            self._until = None
        elif self._clock() >= self._until:
            self._until = None
            self._penalty = self._skip = min(2 * self._penalty + 1, MOST_SKIPPED)
        else:
            self._turns += 1
            self._loop.call_soon(self._turn)
