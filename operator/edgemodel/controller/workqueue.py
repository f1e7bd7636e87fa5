"""A queue of keys: told twice is done once, and never by two workers; failure waits longer each time.

Promises: a key added while it is worked on is worked on once more afterwards, so no news is lost; a delayed
key that is added again comes at the earlier of the two times; ``add`` costs nothing and never waits. Leaves
to others: what a key means and what one pass does (``worker``).

Modelled on client-go's workqueue. Everything runs in one event loop, so there are no locks.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgemodel.errors import Transient

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after a failure: ``first``, then doubled up to ``longest``, each ± ``jitter``."""

    first: float = 0.5
    longest: float = 300.0
    jitter: float = 0.2

    def delay(self, failures: int, spread: float) -> float:
        """Return the wait after so many failures in a row (≥ 1); ``spread`` is a random number in [-1, 1]."""
        # 2**60 would overflow no float, but nothing is gained beyond the longest wait.
        wait = min(self.first * 2.0 ** min(failures - 1, 60), self.longest)
        return wait * (1 + self.jitter * spread)


class WorkQueue(Generic[K]):
    """Keys that wait for a worker, now or later."""

    def __init__(self, *, backoff: Backoff | None = None, spread: Callable[[], float] | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._spread = spread or (lambda: random.uniform(-1.0, 1.0))  # noqa: S311 - spreads load
        self._ready: deque[K] = deque()
        self._queued: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopped = False

    def __len__(self) -> int:
        """Keys that are ready and not yet taken."""
        return len(self._ready)

    @property
    def working(self) -> int:
        """Keys that are being worked on."""
        return len(self._working)

    def add(self, key: K) -> None:
        """Ask for a pass as soon as a worker is free."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if self._stopped or key in self._queued:
            return
        if key in self._working:
            self._again.add(key)
            return
        self._queued.add(key)
        self._ready.append(key)
        self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for a pass in so many seconds; an earlier pass that is planned already stays."""
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, seconds)
        planned = self._timers.get(key)
        if planned is not None:
            if planned.when() <= when:
                return
            planned.cancel()
        self._timers[key] = loop.call_at(when, self.add, key)

    def forget(self, key: K) -> None:
        """Drop a key's failures and planned pass: its object is gone."""
        self._failures.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def run(self, work: Callable[[K], Awaitable[float | None]]) -> None:
        """Be one worker until cancelled: take a key, do ``work``, plan what it asks for.

        ``work`` returns the seconds until the key should be looked at again, or None. When it raises, the
        key comes back after a backoff, or after the wait a ``Transient`` asked for, whichever is longer.
        """
        while True:
            key = await self._take()
            try:
                after = await work(key)
            except Exception as error:  # noqa: BLE001 - becomes a delay, whatever it was
                # Not swallowed: `work` has logged it.
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                after = self._backoff.delay(failures, self._spread())
                if isinstance(error, Transient) and error.retry_after is not None:
                    after = max(after, min(error.retry_after, self._backoff.longest))
            else:
                self._failures.pop(key, None)
            finally:
                self._done(key)
            if after is not None:
                self.add_after(key, after)

    async def stop(self, seconds: float) -> bool:
        """Take no more keys; wait so long for those being worked on. True when all of them ended."""
        self._stopped = True
        self._ready.clear()
        self._queued.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _take(self) -> K:
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        self._queued.discard(key)
        self._working.add(key)
        self._idle.clear()
        return key

    def _done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        if not self._working:
            self._idle.set()
