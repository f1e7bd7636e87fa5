"""Puts pods and Deployments together by version: what the rollout's machine looks at.

Live objects carry 16 hex digits of a digest; slots carry the whole of it. A Deployment that belongs to no slot keeps its
label as its key, so that it can still be named and removed.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from edgemodel.api.meta import LABEL_DIGEST
from edgemodel.api.v1alpha1 import Slot
from edgemodel.reconcile.child import digest_label
from edgemodel.reconcile.pods import PodFacts, withheld
from edgemodel.reconcile.verdicts import Verdicts
from edgemodel.rollout.facts import Failure, Seen


def seen_versions(
    known: Iterable[str],
    children: Collection[Mapping[str, Any]],
    pods: Iterable[PodFacts],
    candidate: Slot | None = None,
    judged: Verdicts | None = None,
) -> dict[str, Seen]:
    """Return what was seen of each version.

    Args:
        known: digests of the slots and of the target; they key their versions.
        children: live children of all kinds.
        pods: all pods of the model.
        candidate: the version that was judged.
        judged: what was found.
    """
    digests = {digest_label(digest): digest for digest in known}
    sizes = {
        label_of(child): int((child.get("spec") or {}).get("replicas", 1))
        for child in children
        if child.get("kind") == "Deployment"
    }
    refused = withheld_by_label(children)
    by_label: dict[str, list[PodFacts]] = {label: [] for label in sizes}
    for pod in pods:
        if not pod.ended:
            by_label.setdefault(pod.digest, []).append(pod)
    found = {
        digests.get(label, label): Seen(
            deployed=label in sizes,
            replicas=sizes.get(label, 0),
            pods=len(own),
            ready=sum(pod.ready for pod in own),
            failure=worst(own) or refused.get(label),
        )
        for label, own in by_label.items()
    }
    if candidate is not None and judged is not None and candidate.digest in found:
        found[candidate.digest] = replace(
            found[candidate.digest],
            golden=judged.golden,
            gate=judged.gate,
            suspect=judged.suspect,
            why=judged.why,
            watched=judged.watched,
        )
    return found


def withheld_by_label(children: Iterable[Mapping[str, Any]]) -> dict[str, Failure]:
    """Return, by digest label, why the pods of live Deployments cannot be made."""
    found = {label_of(child): withheld(child) for child in children if child.get("kind") == "Deployment"}
    return {label: failure for label, failure in found.items() if failure is not None}


def worst(pods: Iterable[PodFacts]) -> Failure | None:
    """Return the failure that decides: a fatal one before one that may pass, then by the pod's name."""
    failing = [
        (not pod.failure.fatal, pod.name, pod.failure) for pod in pods if pod.failure and not pod.going
    ]
    return min(failing, key=lambda found: found[:2])[2] if failing else None


def label_of(live: Mapping[str, Any]) -> str:
    """Return a live object's digest label, empty when it bears none."""
    return str(((live.get("metadata") or {}).get("labels") or {}).get(LABEL_DIGEST, ""))


def selected_label(children: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the digest label that the live Service selects; None when there is no Service."""
    for child in children:
        if child.get("kind") == "Service":
            return str(((child.get("spec") or {}).get("selector") or {}).get(LABEL_DIGEST, ""))
    return None
