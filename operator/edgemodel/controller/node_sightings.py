"""Turns what the watches tell of Nodes and EdgeNodes into keys, and only where something follows from it.

A node's kubelet and its agent report often and mostly the same. What counts is compared with what was seen last: of a
Node, that which placing depends on (labels, taints, cordon, readiness); of an EdgeNode, its key, its spec, and each
model's state. Bytes that only tick make one pass of their model each ``PROGRESS_SECONDS`` at the most.

Readings that passes share are invalidated before any key is added (``cluster.shared``).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from edgemodel.controller.sightings import Key, Sightings
from edgemodel.controller.workqueue import WorkQueue

PLACING_SECONDS = 0.3
"""Seconds before EdgeNodes are brought up to date: a burst of changed models is one pass for each node."""
PROGRESS_SECONDS = 5.0
"""Seconds between two passes of a model that only bytes gave rise to."""
NODES_SECONDS = 1.0
"""Seconds before models are looked at because nodes came, went or changed: they often do so together."""
_LOGIN_FAILED = "AuthenticationFailed"

ModelKey = tuple[str, str]


class _Held(NamedTuple):
    """How far an EdgeNode says a model's versions are."""

    states: frozenset[tuple[str, ...]]
    """Digest, state, reason, and when files were found altered."""
    progress: tuple[Any, ...]


class _EdgeNode(NamedTuple):
    wants: tuple[Any, ...]
    """What the next pass for the node depends on."""
    conditions: frozenset[tuple[str, str]]
    held: Mapping[ModelKey, _Held]


class NodeSightings:
    """What the watches have shown of each Node and EdgeNode."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        sightings: Sightings,
        *,
        nodes_changed: Callable[[], None],
        edge_nodes_changed: Callable[[], None],
        models_changed: Callable[[], None],
    ) -> None:
        """The three functions invalidate what passes have read of nodes, of EdgeNodes, and of models and policies."""
        self._queue = queue
        self._sightings = sightings
        self._nodes_changed = nodes_changed
        self._edge_nodes_changed = edge_nodes_changed
        self._models_changed = models_changed
        self._nodes: dict[str, tuple[Any, ...]] = {}
        self._edge_nodes: dict[str, _EdgeNode] = {}

    @property
    def edge_nodes(self) -> Iterable[Key]:
        """Every EdgeNode that is known."""
        return tuple(Key("EdgeNode", "", name) for name in self._edge_nodes)

    def place(self) -> None:
        """A model's versions or spec, or a policy, changed: every node's spec may follow."""
        self._models_changed()
        for key in self.edge_nodes:
            self._queue.add_after(key, PLACING_SECONDS)

    def look_at_models(self) -> None:
        """Nodes came, went, fell silent or spoke again: it concerns every model that may run there."""
        for key in self._sightings.models:
            self._queue.add_after(key, NODES_SECONDS)

    def node(self, kind: str | None, node: Mapping[str, Any]) -> None:
        """A Node was listed, added, changed or deleted."""
        name = str(node["metadata"]["name"])
        before = self._nodes.get(name)
        if kind == "DELETED":
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = _traits(node)
        if self._nodes.get(name) == before:
            return
        self._nodes_changed()
        if name in self._edge_nodes:
            self._queue.add_after(Key("EdgeNode", "", name), PLACING_SECONDS)
        self.look_at_models()

    def edge_node(self, kind: str | None, edge_node: Mapping[str, Any]) -> None:
        """An EdgeNode was listed, added, changed or deleted."""
        name = str(edge_node["metadata"]["name"])
        key = Key("EdgeNode", "", name)
        before = self._edge_nodes.get(name)
        self._edge_nodes_changed()
        if kind == "DELETED":
            self._edge_nodes.pop(name, None)
            self._queue.add(key)
            self.look_at_models()
            return
        now = self._edge_nodes[name] = _seen(edge_node)
        if before is None:
            self._queue.add(key)
            self.look_at_models()
            return
        if now.wants != before.wants or _login_failed(now) - _login_failed(before):
            # The last: credentials may have been mended, which nothing but another look at the Secret would show.
            self._queue.add_after(key, PLACING_SECONDS)
        for model in now.held.keys() | before.held.keys():
            self._model(
                model, before.held.get(model), now.held.get(model), now.conditions != before.conditions
            )

    def _model(self, model: ModelKey, before: _Held | None, now: _Held | None, conditions: bool) -> None:
        key = Key("EdgeModel", *model)
        if not self._sightings.knows(key):
            return  # gone, or yet to be listed; an agent cannot have passes made for what it invents
        if conditions or before is None or now is None or before.states != now.states:
            self._queue.add(key)
        elif before != now:
            self._queue.add_after(key, PROGRESS_SECONDS)


def _traits(node: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what placing depends on."""
    metadata, spec = node["metadata"], node.get("spec") or {}
    taints = [(it.get("key"), it.get("value"), it.get("effect")) for it in spec.get("taints") or ()]
    conditions = (node.get("status") or {}).get("conditions") or ()
    return (
        metadata.get("uid"),
        bool(metadata.get("deletionTimestamp")),
        tuple(sorted((metadata.get("labels") or {}).items())),
        tuple(sorted(taints, key=str)),
        bool(spec.get("unschedulable")),
        any(it.get("type") == "Ready" and it.get("status") == "True" for it in conditions),
    )


def _seen(edge_node: Mapping[str, Any]) -> _EdgeNode:
    metadata, status = edge_node["metadata"], edge_node.get("status") or {}
    owners = [it.get("uid") for it in metadata.get("ownerReferences") or ()]
    wants = (metadata.get("uid"), metadata.get("generation"), status.get("sealingKey"), tuple(owners))
    conditions = frozenset(
        (str(it.get("type")), str(it.get("status"))) for it in status.get("conditions") or ()
    )
    held: dict[ModelKey, list[Mapping[str, Any]]] = {}
    for one in status.get("models") or ():
        held.setdefault((str(one.get("namespace")), str(one.get("name"))), []).append(one)
    return _EdgeNode(wants, conditions, {model: _held(entries) for model, entries in held.items()})


def _held(entries: Iterable[Mapping[str, Any]]) -> _Held:
    states, progress = [], []
    for one in entries:
        digest = str(one.get("digest"))
        states.append((digest, *(str(one.get(field) or "") for field in ("state", "reason", "alteredAt"))))
        rest = (one.get(field) for field in ("bytes", "total", "kind", "savedBytes", "message"))
        progress.append((digest, *rest))
    return _Held(frozenset(states), tuple(progress))


def _login_failed(seen: _EdgeNode) -> set[ModelKey]:
    return {
        model for model, held in seen.held.items() if any(_LOGIN_FAILED in state for state in held.states)
    }
