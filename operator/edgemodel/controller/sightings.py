"""Turns what the watches tell into keys on the queue, and remembers just enough to notice a blind watch.

A key is all that is ever passed on: what an event says may be old by the time it is read, so a pass looks
for itself. Kept is only, for every EdgeModel and policy, the last generation and resourceVersion seen,
and which versions it has. Nodes are told of in ``node_sightings``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from edgemodel.api.meta import LABEL_MODEL
from edgemodel.controller.workqueue import WorkQueue

POLICY_DELAY = 1.0
"""Seconds before a policy's count of models is made anew: a burst of new models is one pass."""


class Key(NamedTuple):
    """Names one object that passes are made for."""

    kind: Literal["EdgeModel", "ModelTrustPolicy", "EdgeNode", "GatewayAccess"]
    namespace: str
    name: str


class _Seen(NamedTuple):
    generation: int
    version: str
    placing: tuple[Any, ...] = ()
    """What of an EdgeModel's status nodes depend on."""


class Sightings:
    """What the watches have shown of each EdgeModel and policy."""

    def __init__(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue
        self.placing: Callable[[], None] = lambda: None
        """Called when something changed that decides which versions nodes hold, or by which policies."""
        self.specs: Callable[[], None] = lambda: None
        """Called when an EdgeModel came or went, or its spec changed."""
        self._models: dict[Key, _Seen] = {}
        self._policies: dict[Key, _Seen] = {}

    @property
    def models(self) -> Iterable[Key]:
        """Every EdgeModel that is known."""
        return tuple(self._models)

    @property
    def policies(self) -> Iterable[Key]:
        """Every ModelTrustPolicy that is known."""
        return tuple(self._policies)

    def knows(self, model: Key) -> bool:
        """Tell whether an EdgeModel has been shown and not gone."""
        return model in self._models

    def model(
        self, kind: str | None, meta: Mapping[str, Any], status: Mapping[str, Any] | None = None
    ) -> None:
        """An EdgeModel was listed, added, changed or deleted."""
        key = Key("EdgeModel", meta.get("namespace", ""), meta["name"])
        before = self._models.get(key)
        if self._changed(self._models, key, kind, meta, _placing(meta, status or {})):
            self.specs()
            # Its image or namespace may have come under, or left, any policy.
            for policy in self._policies:
                self._queue.add_after(policy, POLICY_DELAY)
        now = self._models.get(key)
        if (
            before is None
            or now is None
            or (before.generation, before.placing) != (now.generation, now.placing)
        ):
            self.placing()
        self._queue.add(key)

    def policy(self, kind: str | None, meta: Mapping[str, Any]) -> None:
        """A ModelTrustPolicy was listed, added, changed or deleted.

        Every model is looked at: which ones an older version of the policy governed is no longer known.
        A change of status alone concerns no model.
        """
        key = Key("ModelTrustPolicy", "", meta["name"])
        if self._changed(self._policies, key, kind, meta):
            self.placing()
            for model in self._models:
                self._queue.add(model)
            self._queue.add(key)

    def child(self, meta: Mapping[str, Any]) -> None:
        """Something that belongs to an EdgeModel was listed, added, changed or deleted."""
        name = (meta.get("labels") or {}).get(LABEL_MODEL) or _owner(meta)
        key = Key("EdgeModel", meta.get("namespace", ""), name or "")
        # Unknown: its model is yet to be listed, which adds the key, or is gone, and garbage collection is at work.
        if key in self._models:
            self._queue.add(key)

    def behind(self, listed: Mapping[Key, str]) -> frozenset[tuple[Key, str]]:
        """Return those EdgeModels whose listed resourceVersion the watch has not shown (yet)."""
        return frozenset(
            (key, version)
            for key, version in listed.items()
            if (seen := self._models.get(key)) is None or seen.version != version
        )

    def drop(self, absent: Iterable[Key]) -> None:
        """Forget EdgeModels whose deletion went unnoticed, and have a last look at them."""
        for key in absent:
            self._models.pop(key, None)
            self.placing()
            self._queue.add(key)

    def _changed(
        self,
        known: dict[Key, _Seen],
        key: Key,
        kind: str | None,
        meta: Mapping[str, Any],
        placing: tuple[Any, ...] = (),
    ) -> bool:
        before = known.get(key)
        if kind == "DELETED":
            known.pop(key, None)
            return True
        seen = _Seen(int(meta.get("generation") or 0), str(meta.get("resourceVersion") or ""), placing)
        known[key] = seen
        return before is None or before.generation != seen.generation


def _placing(meta: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[Any, ...]:
    slots = status.get("slots") or {}
    held = tuple(
        (role, slot.get("digest"), slot.get("image"), slot.get("modelFile"))
        for role, slot in sorted(slots.items())
        if isinstance(slot, Mapping)
    )
    return held, status.get("nodes") is not None, bool(meta.get("deletionTimestamp"))


def _owner(meta: Mapping[str, Any]) -> str | None:
    for owner in meta.get("ownerReferences") or ():
        if owner.get("kind") == "EdgeModel" and owner.get("controller"):
            return str(owner["name"])
    return None
