"""Gathers all that one decision may look at: the EdgeModel, its children and pods, policies, artifact.

Promises: everything is read from the API server anew, nothing from a watch's cache, so that a decision is
never made on what was true before our own last write (nodes, which passes never write, are shared by passes that come
together; ``fleet``). What cannot be read is an error, never taken for
absent. An object that merely bears our labels is not ours: the controlling ownerReference's uid decides; for a pod, that a
ReplicaSet of its version's Deployment controls it.

Leaves to others: registries (``artifacts``), keys (``policies``), what follows (``reconcile``).
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from edgemodel.api.conditions import Reason
from edgemodel.api.meta import LABEL_DIGEST, LABEL_MODEL
from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry_settings import RegistrySettings
from edgemodel.cluster.artifacts import ArtifactCache
from edgemodel.cluster.client import ApiServer, Object
from edgemodel.cluster.fleet import Fleet
from edgemodel.cluster.gateway_view import GatewayView
from edgemodel.cluster.kinds import (
    CHILDREN,
    EDGE_MODEL,
    ENDPOINT_SLICE,
    NAMESPACE,
    POD,
    SERVICE_MONITOR,
    child_kind,
)
from edgemodel.cluster.policies import ReadPolicy, delivered, read_policies
from edgemodel.cluster.pull_secrets import PullSecrets, read_pull_secrets
from edgemodel.errors import Stalled
from edgemodel.reconcile.gateway import LABEL_SERVICE
from edgemodel.reconcile.observed import LiveNode, LiveObject, Observed, Settings, Unresolved
from edgemodel.rollout.evidence import CandidateEvidence

log = logging.getLogger(__name__)

DISCOVERY_SECONDS = 300.0
"""How long it is believed that ServiceMonitors are, or are not, known to the cluster."""


class EvidenceView(Protocol):
    """What is known of candidates (``controller.evidence``)."""

    def observe(self, observed: Observed) -> CandidateEvidence | None:
        """Take over which pods there are; return what is known of the model's candidate."""

    def forget(self, namespace: str, name: str) -> None:
        """Drop what is known: the model is gone."""


class Gatherer:
    """Reads the world for one EdgeModel at a time; any number of gatherings may run side by side."""

    def __init__(
        self,
        api: ApiServer,
        artifacts: ArtifactCache,
        *,
        settings: Settings,
        registries: RegistrySettings,
        fleet: Fleet | None = None,
        gateway: GatewayView | None = None,
        evidence: EvidenceView | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._artifacts = artifacts
        self._settings = settings
        self._fleet = fleet
        self._gateway = gateway
        self._evidence = evidence
        self._registries_json = registries.to_json()
        self._clock = clock
        self._monitors = False
        self._monitors_until = float("-inf")

    async def gather(self, namespace: str, name: str) -> Observed | None:
        """Return what one decision needs; None when the EdgeModel, or its namespace, is gone or going.

        Raises:
            Transient: the API server failed.
            Stalled: the EdgeModel is not one this version can read.
        """
        manifest = await self._api.get(EDGE_MODEL, namespace, name)
        if manifest is None or _going(manifest):
            if self._evidence is not None:
                self._evidence.forget(namespace, name)
            if self._gateway is not None and manifest is None:
                self._gateway.forget(namespace, name)
            return None
        model = read_model(manifest)
        monitors = await self._service_monitors()
        policies, space, secrets, pods, children, nodes = await asyncio.gather(
            read_policies(self._api),
            self._api.get(NAMESPACE, None, namespace),
            read_pull_secrets(self._api, model),
            self._api.list(POD, namespace, labels={LABEL_MODEL: name}),
            self._children(namespace, name, monitors=monitors),
            self._nodes(),
        )
        if space is None or _going(space):
            return None  # nothing can be made in it any more, and what is there goes by itself
        owned = tuple(child for child in children if _owned(child, model))
        observed = Observed(
            model=model,
            settings=self._settings,
            target=Unresolved(Reason.RECONCILING, "spec.image is being resolved"),
            children=owned,
            pods=tuple(pod for pod in pods if _made_for(pod, model)),
            service_monitors=monitors,
            nodes=nodes,
            foreign_slices=tuple(it for it in children if _foreign_slice(it, model)),
        )
        if self._gateway is not None:
            made = str(manifest["metadata"].get("creationTimestamp", ""))
            observed = await self._gateway.observe(observed, made)
        if self._evidence is not None:
            observed = dataclasses.replace(observed, evidence=self._evidence.observe(observed))
        labels = space["metadata"].get("labels") or {}
        return await self._with_artifacts(observed, policies, labels, secrets)

    async def claim(self, observed: Observed, wanted: Iterable[Mapping[str, Any]]) -> Observed:
        """Look, by name, at what is about to be made: it may exist, and belong to somebody else.

        Returns ``observed`` itself when nothing new was found; otherwise one with more ``children`` or
        ``conflicts``.
        """
        known = {(child["kind"], child["metadata"]["name"]) for child in observed.children}
        unknown = [
            manifest for manifest in wanted if (manifest["kind"], manifest["metadata"]["name"]) not in known
        ]
        namespace = observed.model.metadata.namespace
        live = await asyncio.gather(
            *(
                self._api.get(child_kind(manifest), namespace, manifest["metadata"]["name"])
                for manifest in unknown
            )
        )
        found = [item for item in live if item is not None]
        if not found:
            return observed
        ours = tuple(item for item in found if _owned(item, observed.model))
        theirs = tuple(
            f"{item['kind']}/{item['metadata']['name']}" for item in found if not _owned(item, observed.model)
        )
        return dataclasses.replace(
            observed,
            children=observed.children + ours,
            conflicts=tuple(sorted({*observed.conflicts, *theirs})),
        )

    async def _with_artifacts(
        self,
        observed: Observed,
        policies: tuple[ReadPolicy, ...],
        labels: Mapping[str, str],
        secrets: PullSecrets,
    ) -> Observed:
        model = observed.model
        try:
            reference = Reference.parse(model.spec.image)
        except Stalled as error:
            target = Unresolved(Reason.INVALID_SPEC, error.message, stalled=True)
            return dataclasses.replace(observed, target=target)

        def governing(pinned: Reference) -> tuple[ReadPolicy, ...]:
            return tuple(policy for policy in policies if policy.governs(pinned, labels))

        judged, active = await self._artifacts.look(model, reference, secrets, governing)
        # Pods of every version take their policies from one ConfigMap, and versions may lie in different repositories.
        bearing = {policy.name: policy for at in (reference, *references(model)) for policy in governing(at)}
        delivery = {
            "policies.json": delivered(tuple(bearing[name] for name in sorted(bearing))),
            "registries.json": self._registries_json,
        }
        return dataclasses.replace(observed, target=judged, active=active, delivery_config=delivery)

    async def _children(self, namespace: str, name: str, *, monitors: bool) -> tuple[Object, ...]:
        found = await asyncio.gather(
            *(
                self._api.list(kind, namespace, labels={LABEL_MODEL: name})
                for kind in CHILDREN
                if monitors or kind is not SERVICE_MONITOR
            )
        )
        return tuple(child for kind in found for child in kind)

    async def _nodes(self) -> tuple[LiveNode, ...]:
        return () if self._fleet is None else await self._fleet.read()

    async def _service_monitors(self) -> bool:
        if self._clock() >= self._monitors_until:
            served = await self._api.read(f"/apis/{SERVICE_MONITOR.api_version}") or {}
            names = {resource["name"] for resource in served.get("resources", ())}
            self._monitors = SERVICE_MONITOR.plural in names
            self._monitors_until = self._clock() + DISCOVERY_SECONDS
        return self._monitors


def read_model(manifest: Object) -> EdgeModel:
    """Read a live EdgeModel.

    Raises:
        Stalled: ``InvalidSpec``; the message names the field. The CRD refuses such objects, so this one is
        older, or newer.
    """
    try:
        return EdgeModel.model_validate(manifest)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Stalled("InvalidSpec", f"EdgeModel field {where}: {first['msg']}") from error


def _going(live: LiveObject) -> bool:
    return bool(live["metadata"].get("deletionTimestamp"))


def references(model: EdgeModel) -> Iterable[Reference]:
    """Return the pinned references of the versions in a model's slots."""
    slots = model.status.slots
    for slot in (slots.active, slots.candidate, slots.last_good):
        if slot is not None:
            try:
                yield Reference.parse(slot.image)
            except Stalled:
                log.warning(
                    "status names no image", extra={"model": model.metadata.name, "slot": slot.digest}
                )


def _made_for(pod: LiveObject, model: EdgeModel) -> bool:
    """Say whether a pod comes of the Deployment of its version, by the name that Deployments give their ReplicaSets.

    (Reading the ReplicaSets themselves would be another request a pass and another right. A pod that outlives its
    Deployment still holds memory and still counts.)
    """
    label = str((pod["metadata"].get("labels") or {}).get(LABEL_DIGEST, ""))
    ours = f"{model.metadata.name}-{label[:8]}-"
    return any(
        owner.get("controller")
        and owner.get("kind") == "ReplicaSet"
        and str(owner.get("apiVersion", "")).startswith("apps/")
        and str(owner.get("name", "")).startswith(ours)
        for owner in pod["metadata"].get("ownerReferences") or ()
    )


def _foreign_slice(child: LiveObject, model: EdgeModel) -> bool:
    """Tell whether it is an EndpointSlice of the model's Service that is not ours."""
    labels = child["metadata"].get("labels") or {}
    of_service = labels.get(LABEL_SERVICE) == model.metadata.name
    return child["kind"] == ENDPOINT_SLICE.name and of_service and not _owned(child, model)


def _owned(child: LiveObject, model: EdgeModel) -> bool:
    return any(
        owner.get("controller") and owner.get("uid") == model.metadata.uid
        for owner in child["metadata"].get("ownerReferences") or ()
    )
