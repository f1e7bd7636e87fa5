"""Looks at every EdgeModel now and then though nothing happened; notices a watch that has gone blind.

A safety net, reads only: one list a round, and one pass for each model, policy and node spread over the whole interval. A
watch that tells nothing while objects change is the one failure that looks like peace; here it shows,
because what is listed is compared with what was told.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.kinds import EDGE_MODEL
from edgemodel.controller.sightings import Key, Sightings
from edgemodel.controller.workqueue import WorkQueue
from edgemodel.errors import EdgeModelError

log = logging.getLogger(__name__)

GRACE = 45.0
"""Seconds within which a watch must have shown what a list shows."""


class Resync:
    """Goes round all EdgeModels."""

    def __init__(
        self,
        api: ApiServer,
        queue: WorkQueue[Key],
        sightings: Sightings,
        *,
        edge_nodes: Callable[[], Iterable[Key]] = tuple,
        namespaces: tuple[str, ...],
        interval: float,
        grace: float = GRACE,
    ) -> None:
        self._api = api
        self._queue = queue
        self._sightings = sightings
        self._edge_nodes = edge_nodes
        self._namespaces = namespaces
        self._interval = interval
        self._grace = grace
        self.blind: str | None = None
        """What the watch has missed, once it has missed something."""

    async def run(self) -> None:
        """Go round for ever."""
        while True:
            await asyncio.sleep(self._interval * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load
            try:
                await self.round()
            except EdgeModelError as error:
                log.warning("resync put off", extra={"error": str(error)})

    async def round(self) -> None:
        """List once, plan a pass for each, compare with what the watch has shown."""
        known = self._sightings.models
        listed = await self._list()
        self._sightings.drop(key for key in known if key not in listed)
        # Policies and nodes too: Secrets that they depend on, and labels of namespaces, are not watched.
        for key in (*listed, *self._sightings.policies, *self._edge_nodes()):
            self._queue.add_after(key, random.uniform(0, self._interval * 0.8))  # noqa: S311 - spreads load
        suspects = self._sightings.behind(listed)
        if not suspects:
            return
        await asyncio.sleep(self._grace)
        # Still as it was listed then, and still not shown: the watch had its time.
        again = await self._list()
        missed = self._sightings.behind(again) & suspects
        if missed:
            key, version = min(missed)
            self.blind = (
                f"the watch has not shown {key.namespace}/{key.name} at {version} within {self._grace:.0f} s"
            )
            log.error("watch is blind", extra={"missed": len(missed), "first": f"{key.namespace}/{key.name}"})

    async def _list(self) -> dict[Key, str]:
        found = {}
        for namespace in self._namespaces or (None,):
            for model in await self._api.list(EDGE_MODEL, namespace):
                meta = model["metadata"]
                found[Key("EdgeModel", meta["namespace"], meta["name"])] = meta["resourceVersion"]
        return found
