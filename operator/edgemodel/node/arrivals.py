"""All entries of this node: begun, changed and let go as its EdgeNode says, and given to the pods that may have them.

Promises
- What a pod gets belongs to an entry of its own namespace, model and digest, judged by the policies that the entry names
  now; an entry that changed is judged anew before anybody gets it.
- An entry that goes is cancelled wherever it is; what it has on disk stays until room is needed. What is mounted is never
  touched here.
- A hundred pods that wait cost a hundred futures.

Leaves to others: the way of one entry (``arrival``), mounting (``csi``).
"""

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Iterator
from pathlib import Path

from edgemodel.artifact.digest import Digest
from edgemodel.node.arrival import Arrival
from edgemodel.node.csi.holdings import Failed, NotEntitled, NotReady
from edgemodel.node.entry import Entry, Key
from edgemodel.node.site import Site

GRACE_SECONDS = 5.0
"""A pod may be quicker than the EdgeNode that speaks of it."""
LONGEST_WAIT = 100.0
"""Seconds; the kubelet gives up at 120 and shows nothing but a deadline then."""


class Arrivals:
    """See the module's docstring; implements ``csi.holdings.Holdings``."""

    def __init__(
        self, site: Site, *, grace: float = GRACE_SECONDS, longest_wait: float = LONGEST_WAIT
    ) -> None:
        self._site = site
        self._grace = grace
        self._longest_wait = longest_wait
        self._arrivals: dict[Key, Arrival] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._taken = asyncio.Event()

    def __iter__(self) -> Iterator[Arrival]:
        return iter(list(self._arrivals.values()))

    @property
    def pinned(self) -> frozenset[Digest]:
        """Manifests of all entries."""
        return frozenset(key.digest for key in self._arrivals)

    def take(self, entries: Iterable[Entry]) -> None:
        """Hold these entries and no other."""
        wanted = {entry.key: entry for entry in entries}
        self._site.board.keep(wanted)
        for key in self._arrivals.keys() - wanted.keys():
            self._let_go(key)
        for key, entry in wanted.items():
            there = self._arrivals.get(key)
            if there is not None and there.entry == entry:
                continue
            if there is not None and there.entry.same_work(entry):
                there.entry = entry
                if there.directory is None:
                    there.nudge()  # it may be waiting for a window that is gone
                continue
            if there is not None:
                self._let_go(key)
            self._begin(entry)
        told, self._taken = self._taken, asyncio.Event()
        told.set()

    def _begin(self, entry: Entry) -> None:
        arrival = Arrival(entry, self._site)
        self._arrivals[entry.key] = arrival
        self._tasks[entry.key] = asyncio.create_task(arrival.run(), name=f"arrival of {entry.key}")

    def _let_go(self, key: Key) -> None:
        arrival, task = self._arrivals.pop(key), self._tasks.pop(key)
        task.cancel()
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        arrival.lost()  # those who wait for it look again

    def damaged(self, blobs: Collection[Digest], message: str) -> None:
        """These blobs were found changed on disk and were condemned: whatever is made of one comes anew."""
        for arrival in self:
            if not arrival.blobs.isdisjoint(blobs):
                arrival.damage(message)

    async def directory(self, namespace: str, model: str, digest: str) -> Path:
        """See ``Holdings.directory``."""
        loop = asyncio.get_running_loop()
        waiting: Awaitable[object]
        key, began = Key(namespace, model, Digest(digest)), loop.time()
        while True:
            arrival = self._arrivals.get(key)
            if arrival is None:
                left = began + self._grace - loop.time()
                if left <= 0:
                    raise NotEntitled(f"this node is to hold no {digest} of {namespace}/{model}")
                waiting = self._taken.wait()
            elif arrival.directory is not None:
                if self._site.store.installed(key.digest, arrival.entry.model_file) == arrival.directory:
                    self._site.store.touch(key.digest)
                    return arrival.directory
                arrival.lost()
                continue
            elif arrival.failure is not None:
                raise Failed(arrival.failure.reason, arrival.failure.message)
            else:
                left = began + self._longest_wait - loop.time()
                if left <= 0:
                    raise NotReady(arrival.progress())
                waiting = arrival.changed()
            try:
                async with asyncio.timeout(left):
                    await waiting
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Stop whatever is on its way; it goes on from there another time."""
        tasks = [*self._tasks.values(), *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
