"""One reading of the API server for many passes: kept for a moment, and never older than the last thing that happened.

Passes come in bursts (a policy changed: every model), and each would list the same nodes. Promise: what ``get``
returns was begun to be read after the last ``invalidate``, and at most ``max_age`` seconds ago. Whoever hears of an
event invalidates first and only then asks for a pass, so no pass ever decides on what was true before the event that
brought it about. A failed reading is shared by those who wait for it and kept for nobody else.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """A reading that passes share; everything runs in one event loop, so there are no locks."""

    def __init__(
        self,
        read: Callable[[], Coroutine[Any, Any, T]],
        *,
        max_age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._max_age = max_age
        self._clock = clock
        self._task: asyncio.Task[T] | None = None
        self._began = 0.0
        self._stale = False

    def invalidate(self) -> None:
        """Something happened: what is being read, or was, is of no more use to those who ask from now on."""
        self._stale = True

    async def get(self) -> T:
        """Return the reading at hand, the one under way, or a new one."""
        task = self._task
        if task is None or self._stale or (task.done() and self._spent(task)):
            self._stale = False
            self._began = self._clock()
            task = self._task = asyncio.create_task(self._read())
            # Known to whoever waits; if all of them were cut off, it is nobody's news.
            task.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())
        # A pass that is cut off must not take the reading from the others.
        return await asyncio.shield(task)

    def _spent(self, task: asyncio.Task[T]) -> bool:
        failed = task.cancelled() or task.exception() is not None
        return failed or self._clock() - self._began >= self._max_age
