"""Writes this node's status to the API server: when something changed, and then as seldom as can be.

Promises: a change of state goes out at once; bytes that tick go out at most every five seconds, in steps of five per cent; a
status that says what was said before is not written; what could not be written is written when the API server is back, as
it is by then. The sign of life is no business of status (``heartbeat``).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from edgemodel.kube_api import ApiFailed
from edgemodel.node.backoff import Backoff

log = logging.getLogger(__name__)

Status = dict[str, Any]

PROGRESS_SECONDS = 5.0
PROGRESS_STEP = 0.05
SETTLE_SECONDS = 0.1
"""What changes together goes out together."""
LONGEST_PAUSE = 60.0


class Report:
    """One node's status.

    Args:
        build: returns the whole status as it is.
        write: writes it; raises ``ApiFailed``.
        progress_seconds: see the module's docstring.
    """

    def __init__(
        self,
        build: Callable[[], Awaitable[Status]],
        write: Callable[[Status], Awaitable[None]],
        *,
        progress_seconds: float = PROGRESS_SECONDS,
    ) -> None:
        self._build = build
        self._write = write
        self._progress_seconds = progress_seconds
        self._wake = asyncio.Event()
        self._last: Status | None = None
        self._written_at = float("-inf")
        self.writes = 0

    def changed(self) -> None:
        """Something may have changed."""
        self._wake.set()

    def known(self, status: object) -> None:
        """Learn what the API server holds, before the first write: the same is not written again."""
        if self._last is None and isinstance(status, dict) and status:
            self._last = status

    def unknown(self) -> None:
        """The API server's object is another than the one that was written to."""
        self._last = None
        self._wake.set()

    async def run(self) -> None:
        """Write, for ever."""
        backoff, silent = Backoff(1.0, LONGEST_PAUSE), False
        while True:
            await self._wake.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._wake.clear()
            status = await self._build()
            wait = self._wait(status)
            if wait is None:
                continue
            if wait > 0:
                try:
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                except TimeoutError:
                    self._wake.set()
                continue
            try:
                await self._write(status)
            except ApiFailed as error:
                if not silent:
                    log.warning("cannot write this node's status: %s", error.message)
                silent = True
                await asyncio.sleep(backoff.next(error.retry_after))
                self._wake.set()
                continue
            backoff.reset()
            silent, self._last = False, status
            self._written_at = asyncio.get_running_loop().time()
            self.writes += 1

    def _wait(self, status: Status) -> float | None:
        """Return the seconds until a status may be written; None when it is not worth it."""
        last = self._last
        if last is None or _without_ticks(status) != _without_ticks(last):
            return 0.0
        if not any(map(_moved, status.get("models", []), last.get("models", []))):
            return None
        past = asyncio.get_running_loop().time() - self._written_at
        return max(self._progress_seconds - past, 0.0)


def _without_ticks(status: Status) -> Status:
    """Return what is left of a status without the numbers that change all the time."""
    return status | {
        "models": [_drop(model, "bytes") for model in status.get("models", [])],
        "store": int(status.get("store", {}).get("usedBytes", 0)) >> 20,
    }


def _drop(document: Status, *names: str) -> Status:
    return {name: value for name, value in document.items() if name not in names}


def _moved(model: Status, before: Status) -> bool:
    step = max(int(model.get("total", 0)) * PROGRESS_STEP, 1)
    return abs(int(model.get("bytes", 0)) - int(before.get("bytes", 0))) >= step
