"""Hashes installed models again, one after the other, each as often as its entry says, and slowly.

Promises: what was installed counts as looked at; a restart of the agent does not begin anew (``<store>/rechecked.json``
remembers), nor do all nodes of a fleet read at the same time; a clock that jumps makes a check early or late, and no more.
Leaves to others: what is done about a mismatch (``recheck`` takes the model down, its arrival brings it anew).
"""

import asyncio
import json
import logging
import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from edgemodel.artifact.digest import Digest
from edgemodel.errors import EdgeModelError
from edgemodel.node.arrivals import Arrivals
from edgemodel.node.metrics import Metrics
from edgemodel.node.recheck import recheck
from edgemodel.node.small_file import read_small, write_small
from edgemodel.node.store import NodeStore

log = logging.getLogger(__name__)

_LOOK_SECONDS = 60.0
_JITTER = 0.1


class Rechecks:
    """See the module's docstring.

    Args:
        arrivals: what is to be looked at.
        store: where it is.
        metrics: where results are counted.
        bytes_per_second: how fast files are read.
        clock: wall clock, aware.
        look: seconds between two looks at what is due.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        store: NodeStore,
        metrics: Metrics,
        *,
        bytes_per_second: float,
        clock: Callable[[], datetime],
        look: float = _LOOK_SECONDS,
    ) -> None:
        self._arrivals = arrivals
        self._store = store
        self._metrics = metrics
        self._rate = bytes_per_second
        self._clock = clock
        self._look = look
        self._path = store.root / "rechecked.json"
        self._done = _read(self._path)

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            for digest in self._due():
                await self._check(digest)
            await asyncio.sleep(self._look)

    def _due(self) -> list[Digest]:
        now = self._clock().timestamp()
        intervals: dict[Digest, float] = {}
        for arrival in self._arrivals:
            every = arrival.entry.recheck_seconds
            if arrival.directory is not None and every > 0:
                intervals[arrival.entry.digest] = min(every, intervals.get(arrival.entry.digest, every))
        self._done = {digest: at for digest, at in self._done.items() if digest in self._arrivals.pinned}
        due = []
        for digest, every in intervals.items():
            last = self._done.get(digest)
            if last is None or last > now:
                # Just installed, or first seen, or the clock was set back: somewhere within the next interval.
                last = self._done[digest] = now - every * random.uniform(0.0, _JITTER)  # noqa: S311
            if now - last >= every:
                due.append((last + every, digest))
        return [digest for _, digest in sorted(due)]

    async def _check(self, digest: Digest) -> None:
        try:
            found = await recheck(self._store, digest, bytes_per_second=self._rate)
        except EdgeModelError as error:
            self._metrics.checks.labels("error").inc()
            log.warning("%s cannot be hashed again: %s", digest, error)
            found = []
        else:
            self._metrics.checks.labels("mismatch" if found else "ok").inc()
        self._done[digest] = self._clock().timestamp()
        if found:
            what = ", ".join(blob.short for blob in found)
            log.error("the store's files are not what was verified", extra={"blobs": list(found)})
            self._arrivals.damaged(
                found, f"what lies on this node's disk under {what} is not what was verified"
            )
        await asyncio.to_thread(self._write)

    def _write(self) -> None:
        try:
            write_small(self._path, json.dumps(self._done).encode(), durable=False)
        except EdgeModelError as error:
            log.warning("it cannot be noted what was checked: %s", error)


def _read(path: Path) -> dict[Digest, float]:
    try:
        document = json.loads(read_small(path))
        return {Digest(digest): float(at) for digest, at in document.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # then everything is checked within the next interval
