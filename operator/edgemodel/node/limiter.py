"""A token bucket: how many bytes a second all of a node's downloads may take together, or a re-hash may read.

Promises: over any time the bytes taken are at most ``rate`` times that time plus one burst; whoever asks first is served
first; the rate may be changed at any moment and counts for those who wait, too. Leaves to others: what a byte is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

BURST_SECONDS = 0.25
"""How much may be taken at once after a pause; keeps the pieces small that others wait behind."""


class Limiter:
    """See the module's docstring.

    Args:
        rate: bytes a second; None for no limit.
        clock: seconds, never backwards.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        rate: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._tokens = 0.0
        self._filled = clock()
        self._turn = asyncio.Lock()

    async def take(self, amount: int) -> None:
        """Wait until so many bytes may pass; an amount beyond a burst is paid for by those who come after."""
        if not self.rate:
            return
        async with self._turn:
            while True:
                rate = self.rate
                if not rate:
                    return
                now = self._clock()
                self._tokens = min(rate * BURST_SECONDS, self._tokens + (now - self._filled) * rate)
                self._filled = now
                if self._tokens >= 0:
                    self._tokens -= amount
                    return
                # In steps, so that a new rate is noticed; none so short that the clock does not see it.
                await self._sleep(min(max(-self._tokens / rate, 0.001), 1.0))
