"""Notices nodes that fall silent or speak again, without watching their Leases, which would be an event a minute a node.

One list of the agents' Leases each round, reads only. When a node turned offline or online, every EdgeModel is looked at:
each decides for itself whether that node concerns it. The first round only takes note: at the start every model is looked
at anyway.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from edgemodel.cluster.fleet import Fleet
from edgemodel.controller.metrics import Metrics
from edgemodel.controller.node_sightings import NodeSightings
from edgemodel.errors import EdgeModelError
from edgemodel.reconcile.nodes import name_of, online
from edgemodel.reconcile.observed import LiveNode

log = logging.getLogger(__name__)

State = Literal["online", "offline", "without_agent"]
STATES: tuple[State, ...] = ("online", "offline", "without_agent")


class Heartbeats:
    """Goes round the fleet."""

    def __init__(
        self,
        fleet: Fleet,
        nodes: NodeSightings,
        metrics: Metrics,
        *,
        interval: float,
        clock: Callable[[], datetime],
    ) -> None:
        self._fleet = fleet
        self._nodes = nodes
        self._metrics = metrics
        self._interval = interval
        self._clock = clock
        self._known: dict[str, State] | None = None

    async def run(self) -> None:
        """Go round for ever."""
        while True:
            try:
                await self.round()
            except EdgeModelError as error:
                log.warning("nodes not looked at", extra={"error": str(error)})
            await asyncio.sleep(self._interval)

    async def round(self) -> None:
        """Look once; have models looked at if a node turned."""
        now = self._clock()
        states = {name_of(live.node): _state(live, now) for live in await self._fleet.look()}
        for state in STATES:
            self._metrics.nodes.labels(state).set(sum(one == state for one in states.values()))
        before, self._known = self._known, states
        if before is None:
            return
        turned = [name for name, state in states.items() if name in before and before[name] != state]
        for name in turned:
            log.info(
                "node turned",
                extra={"kind": "Node", "object": name, "state": states[name], "was": before[name]},
            )
        if turned:
            self._nodes.look_at_models()


def _state(live: LiveNode, now: datetime) -> State:
    if live.edge_node is None:
        return "without_agent"
    return "online" if online(live, now) else "offline"
