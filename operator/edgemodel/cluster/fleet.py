"""The nodes of the cluster, what their agents say, and when each was last heard of: read once for many passes.

A hundred models on twenty nodes must not mean a hundred lists a second, so passes share readings (``shared`` tells why
no pass ever decides on what was true before the event that brought it about). Nodes and EdgeNodes are watched, so a
reading lives until one of them changes, but for at most ``NODES_SECONDS``. Leases are not watched: one list each
``LEASES_SECONDS`` at the most.

When a node was last heard of is told by the API server's own clock: the time it noted in ``managedFields`` when the
agent's Lease, or its EdgeNode's status, last changed. What the agent itself writes as ``renewTime`` is used only where
there is no such note, and never when it lies ahead: a node whose clock is years off must not count as alive, or dead.
How long it may be silent is told by its Lease too, which is how agents with another rhythm need no setting here.

Leaves to others: who counts as online and who may run a pod (``reconcile.nodes``).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edgemodel.api.meta import BEAT_SECONDS, BEATS_MISSED, LEASE_PREFIX, NODE_MANAGER
from edgemodel.cluster.client import ApiServer, Object
from edgemodel.cluster.kinds import EDGE_NODE, LEASE, NODE
from edgemodel.cluster.shared import Shared
from edgemodel.reconcile.observed import LiveNode

NODES_SECONDS = 10.0
"""How long a reading of nodes and EdgeNodes may serve though no change was shown: their watches may lag."""
LEASES_SECONDS = 30.0
"""How long a reading of the agents' Leases may serve; small beside the minutes after which a node counts as offline."""
PATIENCE = BEAT_SECONDS * BEATS_MISSED
"""Seconds an agent may be silent whose Lease does not say otherwise."""
LONGEST_PATIENCE = 86400.0
"""What an agent says of its own patience counts up to here: it could otherwise never be called offline."""


@dataclass(frozen=True, slots=True)
class Beat:
    """An agent's last sign of life by its Lease."""

    heard: datetime | None = None
    patience: float = PATIENCE


class Fleet:
    """Reads nodes; ``nodes_changed`` and ``edge_nodes_changed`` are told by the watches."""

    def __init__(
        self,
        api: ApiServer,
        *,
        lease_namespace: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._lease_namespace = lease_namespace
        self._wall = wall
        self._nodes = Shared(self._read_nodes, max_age=NODES_SECONDS, clock=clock)
        self._edge_nodes = Shared(self._read_edge_nodes, max_age=NODES_SECONDS, clock=clock)
        self._beats = Shared(self._read_beats, max_age=LEASES_SECONDS, clock=clock)

    def nodes_changed(self) -> None:
        """A Node came, went or changed in what placing depends on."""
        self._nodes.invalidate()

    def edge_nodes_changed(self) -> None:
        """An EdgeNode came, went or changed."""
        self._edge_nodes.invalidate()

    async def look(self) -> tuple[LiveNode, ...]:
        """Read the Leases anew, and return what ``read`` does."""
        self._beats.invalidate()
        return await self.read()

    async def read(self) -> tuple[LiveNode, ...]:
        """Return every Node, by name, with its EdgeNode and when its agent was last heard of.

        Raises:
            Transient: the API server failed.
        """
        nodes, edge_nodes, beats = await asyncio.gather(
            self._nodes.get(), self._edge_nodes.get(), self._beats.get()
        )
        return tuple(
            live_node(node, edge_nodes.get(name), beats.get(name, Beat()), self._wall())
            for name, node in sorted(nodes.items())
        )

    async def one(self, name: str) -> LiveNode | None:
        """Return one Node and its EdgeNode as they are at this moment, without sign of life; None when it is gone."""
        node, edge_node = await asyncio.gather(
            self._api.get(NODE, None, name), self._api.get(EDGE_NODE, None, name)
        )
        return None if node is None else LiveNode(node=node, edge_node=edge_node, heard=None)

    async def _read_nodes(self) -> Mapping[str, Object]:
        return {node["metadata"]["name"]: _slim_node(node) for node in await self._api.list(NODE)}

    async def _read_edge_nodes(self) -> Mapping[str, Object]:
        return {it["metadata"]["name"]: it for it in await self._api.list(EDGE_NODE)}

    async def _read_beats(self) -> Mapping[str, Beat]:
        return {
            lease["metadata"]["name"].removeprefix(LEASE_PREFIX): _beat(lease, self._wall())
            for lease in await self._api.list(LEASE, self._lease_namespace)
            if lease["metadata"]["name"].startswith(LEASE_PREFIX)
        }


def live_node(node: Object, edge_node: Object | None, beat: Beat, now: datetime) -> LiveNode:
    """Put together what is known of one node.

    Args:
        node: the Node.
        edge_node: the EdgeNode of that name.
        beat: what its Lease tells.
        now: nothing was heard later than this.
    """
    if edge_node is None or _of_another(edge_node, node):
        # A Lease alone is no agent that could be asked for anything.
        return LiveNode(node=node, edge_node=None, heard=None, patience=beat.patience)
    wrote = _stamps(edge_node, lambda entry: entry.get("manager") == NODE_MANAGER and "subresource" in entry)
    heard = _latest((beat.heard, *wrote), now)
    return LiveNode(node=node, edge_node=edge_node, heard=heard, patience=beat.patience)


def _of_another(edge_node: Object, node: Object) -> bool:
    """Tell whether a Node that had this name before owns it: another machine wrote it, and it will be collected."""
    owners = edge_node["metadata"].get("ownerReferences") or ()
    return any(it.get("kind") == "Node" and it.get("uid") != node["metadata"]["uid"] for it in owners)


def _beat(lease: Object, now: datetime) -> Beat:
    spec = lease.get("spec") or {}
    heard = _latest(_stamps(lease, lambda _: True), now)
    if heard is None:
        renewed = _time(spec.get("renewTime"))
        heard = renewed if renewed is not None and renewed <= now else None
    try:
        patience = min(float(spec.get("leaseDurationSeconds") or PATIENCE), LONGEST_PATIENCE)
    except (TypeError, ValueError):
        patience = PATIENCE
    return Beat(heard, patience)


def _stamps(live: Object, ours: Callable[[Mapping[str, Any]], bool]) -> Iterable[datetime]:
    for entry in live["metadata"].get("managedFields") or ():
        stamp = _time(entry.get("time"))
        if stamp is not None and ours(entry):
            yield stamp


def _latest(stamps: Iterable[datetime | None], now: datetime) -> datetime | None:
    # The API server's clock may be a little ahead of ours.
    return max((min(stamp, now) for stamp in stamps if stamp is not None), default=None)


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _slim_node(node: Object) -> Object:
    """Leave out what is long and never asked for: a Node lists up to fifty images and who wrote which field."""
    metadata = {key: value for key, value in node["metadata"].items() if key != "managedFields"}
    status = {key: value for key, value in (node.get("status") or {}).items() if key != "images"}
    return {**node, "metadata": metadata, "status": status}
