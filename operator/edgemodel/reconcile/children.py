"""The list of children that one pass wants, against those that live: what to apply, what to delete."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from edgemodel.reconcile.child import Object, digest_label, sealed
from edgemodel.reconcile.decision import ObjectRef
from edgemodel.reconcile.delivery import delivery_config
from edgemodel.reconcile.deployment import deployment
from edgemodel.reconcile.disruption import disruption_budget
from edgemodel.reconcile.drift import differs
from edgemodel.reconcile.gateway import Way, slices, way
from edgemodel.reconcile.monitor import service_monitor
from edgemodel.reconcile.observed import Observed
from edgemodel.reconcile.service import service
from edgemodel.reconcile.versions import label_of
from edgemodel.rollout.machine import Step


def desired_children(
    observed: Observed, step: Step, frozen: str | None, mounting: frozenset[str] = frozenset()
) -> tuple[Object, ...]:
    """Return all children, in the order in which they are to be applied.

    What pods mount comes first, then what the Service leads to, the Service last.

    ``mounting`` are the digests whose pods mount the model from their node. ``frozen`` is the digest of an active version
    that today's policies refuse: its Deployment is wanted as it lives, but for a smaller size, because any other change
    would replace pods that answer by pods that may not start.
    """
    if step.serve is None:
        return ()
    model, settings = observed.model, observed.settings
    live = {label_of(child): child for child in observed.children if child.get("kind") == "Deployment"}
    deployments = [
        frozen_deployment(live[digest_label(slot.digest)], replicas)
        if slot.digest == frozen
        else sealed(deployment(model, settings, slot, replicas, mounts=slot.digest in mounting))
        for slot, replicas in step.run
    ]
    monitors = [sealed(service_monitor(model, settings))] if observed.service_monitors else []
    config = sealed(delivery_config(model, settings, observed.delivery_config))
    return (
        *([config] if _fetching(deployments, observed) else []),
        *deployments,
        sealed(disruption_budget(model, settings, step.serve)),
        *monitors,
        *(sealed(one) for one in slices(observed)),
        sealed(
            service(model, settings, None if step.closed or way(observed) is not Way.PODS else step.serve)
        ),
    )


def _fetching(deployments: Iterable[Mapping[str, Any]], observed: Observed) -> bool:
    """Tell whether any pod, of those to come and those that live, fetches for itself: only those need the ConfigMap."""
    live = (child for child in observed.children if child.get("kind") == "Deployment")
    of_pods = ({"spec": {"template": pod}} for pod in observed.pods)
    return any(
        ((one.get("spec") or {}).get("template") or {}).get("spec", {}).get("initContainers")
        for one in (*deployments, *live, *of_pods)
    )


def frozen_deployment(live: Mapping[str, Any], replicas: int) -> Object:
    """Return a live Deployment in a form that can be applied: all as it is but its size."""
    meta = live["metadata"]
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    annotations = {
        key: value for key, value in meta.get("annotations", {}).items() if not key.startswith("deployment.")
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**{key: meta[key] for key in kept if key in meta}, "annotations": annotations},
        "spec": {**live["spec"], "replicas": replicas},
    }


def to_apply(
    desired: Iterable[Object], live: Iterable[Mapping[str, Any]], conflicts: Iterable[str]
) -> tuple[Object, ...]:
    """Return the children that differ from what is live, without those whose name belongs to somebody else."""
    lives = {_key(child): child for child in live}
    taken = set(conflicts)
    return tuple(
        child
        for child in desired
        if f"{child['kind']}/{child['metadata']['name']}" not in taken
        and (_key(child) not in lives or differs(child, lives[_key(child)]))
    )


def to_delete(
    desired: Iterable[Object],
    live: Iterable[Mapping[str, Any]],
    step: Step,
    known: Iterable[str],
    held: Collection[str] = (),
) -> tuple[ObjectRef, ...]:
    """Return live children that are no longer wanted; Deployments only when the machine says they may go.

    ``known`` are the digests of versions that the machine may have named; ``held`` names the EndpointSlices that requests
    still come by.
    """
    wanted = {_key(child) for child in desired}
    full = {digest_label(digest): digest for digest in known}
    gone = []
    for child in live:
        if _key(child) in wanted or child["metadata"].get("deletionTimestamp"):
            continue
        label = label_of(child)
        if child.get("kind") == "Deployment" and full.get(label, label) not in step.remove:
            continue
        if child.get("kind") == "EndpointSlice" and child["metadata"]["name"] in held:
            continue
        gone.append(
            ObjectRef(
                api_version=str(child.get("apiVersion", "")),
                kind=str(child.get("kind", "")),
                name=child["metadata"]["name"],
                uid=str(child["metadata"].get("uid", "")),
            )
        )
    return tuple(gone)


def _key(child: Mapping[str, Any]) -> tuple[str, str]:
    return str(child.get("kind", "")), str(child["metadata"]["name"])
