"""A pass for one EdgeNode: which versions of which models is that node to hold, and by which policies are they judged?

One write at most, and none when nothing changed. An EdgeNode whose Node is gone is left to the garbage collector, which
takes it because it names that Node as its owner; one that does not exist is its agent's to make.

Leaves to others: what follows from the models (``reconcile.edge_node``), when to run (``node_sightings``).
"""

import logging
from typing import Any

from edgemodel.cluster.apply import apply_edge_node
from edgemodel.cluster.client import ApiServer, Object
from edgemodel.cluster.fleet import Fleet
from edgemodel.cluster.placements import Placements
from edgemodel.cluster.sealed_secrets import ModelKey
from edgemodel.reconcile.edge_node import edge_node_spec
from edgemodel.reconcile.observed import LiveObject, Settings

log = logging.getLogger(__name__)


class EdgeNodes:
    """Writes the spec of EdgeNodes."""

    def __init__(self, api: ApiServer, fleet: Fleet, placements: Placements, settings: Settings) -> None:
        self._api = api
        self._fleet = fleet
        self._placements = placements
        self._settings = settings

    async def update(self, name: str) -> bool:
        """Bring one EdgeNode's spec up to date; True when something was written."""
        found = await self._fleet.one(name)
        if found is None or found.edge_node is None or _going(found.edge_node) or _going(found.node):
            self._placements.forget(name)
            return False
        status = found.edge_node.get("status") or {}
        placed = await self._placements.on(found.node, str(status.get("sealingKey") or ""))
        spec = edge_node_spec(found.node, placed.placements, self._settings)
        if placed.unreadable:
            spec = _with_kept(spec, found.edge_node.get("spec") or {}, placed.unreadable)
        written = await apply_edge_node(self._api, found.edge_node, found.node, spec)
        if written is None:
            return False
        log.info(
            "edge node applied",
            extra={
                "kind": "EdgeNode",
                "object": name,
                "models": len(spec["models"]),
                "resource_version": written["metadata"].get("resourceVersion"),
            },
        )
        return True


def _with_kept(spec: Object, live: LiveObject, models: frozenset[ModelKey]) -> dict[str, Any]:
    """Return the spec with those entries of the live one that belong to models which cannot be read now."""
    kept = [one for one in live.get("models") or () if (one["namespace"], one["name"]) in models]
    named = {name for one in kept for name in one.get("policies") or ()} - {
        it["name"] for it in spec["policies"]
    }
    policies = [one for one in live.get("policies") or () if one["name"] in named]
    return {**spec, "models": [*spec["models"], *kept], "policies": [*spec["policies"], *policies]}


def _going(live: LiveObject) -> bool:
    return bool(live["metadata"].get("deletionTimestamp"))
