"""Is there memory for both versions at once? Told before a candidate is started, not found out from a pod that hangs.

What is compared: the memory that the candidate's pods request, and what nodes that may run them can give
(``status.allocatable``), less what this EdgeModel's own pods there request.

What is not seen, and may still keep a pod waiting: pods of others, a RuntimeClass's overhead, quotas, memory that is used
beyond what was requested. So "no room" is certain, and "room" is not; a pod that no node takes says so itself.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from edgemodel.api.v1alpha1 import Slot
from edgemodel.reconcile.child import digest_label
from edgemodel.reconcile.deployment import deployment
from edgemodel.reconcile.eligibility import eligible
from edgemodel.reconcile.observed import LiveObject, Observed
from edgemodel.reconcile.quantity import amount
from edgemodel.reconcile.versions import label_of
from edgemodel.rollout.facts import SURGE_NEEDS_ROOM

_NAMED = 5
_MEBIBYTE = 1 << 20


def shortage(observed: Observed, slot: Slot) -> str | None:
    """Return why the candidate cannot run beside what runs; None when it runs already, or nothing speaks against it."""
    model = observed.model
    if any(label_of(pod) == digest_label(slot.digest) for pod in observed.pods):
        return None
    template = deployment(model, observed.settings, slot, 1)["spec"]["template"]["spec"]
    need, wanted = requested(template), model.spec.replicas
    if need is None or need <= 0:
        return None
    taken: dict[str, Fraction] = {}
    for pod in observed.pods:
        spec, status = pod.get("spec") or {}, pod.get("status") or {}
        if status.get("phase") not in ("Failed", "Succeeded"):
            name = str(spec.get("nodeName") or "")
            taken[name] = taken.get(name, Fraction()) + (requested(spec) or 0)
    room, names = 0, []
    for live in observed.nodes:
        node = live.node
        if not eligible(model.spec.pod_template, node) or not _ready(node):
            continue
        name = str((node.get("metadata") or {}).get("name", ""))
        has = amount(((node.get("status") or {}).get("allocatable") or {}).get("memory"))
        if has is None:
            return None  # what a node has is not known, and may be enough
        room += max(0, int((has - taken.get(name, Fraction())) // need))
        names.append(name)
    if not names or room >= wanted:
        return None
    where = ", ".join(sorted(names)[:_NAMED]) + (" and others" if len(names) > _NAMED else "")
    return (
        f"No memory for both versions: {_count(wanted)} of the new one ask for {_mebibytes(need)} each, and beside what "
        f"this model runs there is room for {room} on {where}. {model.spec.rollout.strategy}: {SURGE_NEEDS_ROOM}."
    )


def requested(pod: Mapping[str, Any]) -> Fraction | None:
    """Return the bytes of memory that a pod's spec requests; None when a quantity cannot be read.

    That is what its containers ask for together, or one init container if that is more.
    """
    containers = [_request(one) for one in pod.get("containers") or ()]
    before = [_request(one) for one in pod.get("initContainers") or ()]
    known = [one for one in (*containers, *before) if one is not None]
    if len(known) < len(containers) + len(before):
        return None
    return max(_sum(known[: len(containers)]), *known[len(containers) :], Fraction())


def _request(container: Mapping[str, Any]) -> Fraction | None:
    resources = container.get("resources") or {}
    for part in ("requests", "limits"):  # without a request Kubernetes takes the limit
        found = (resources.get(part) or {}).get("memory")
        if found is not None:
            return amount(found)
    return Fraction()


def _sum(found: Iterable[Fraction | None]) -> Fraction:
    return sum((one for one in found if one is not None), Fraction())


def _ready(node: LiveObject) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _count(pods: int) -> str:
    return "1 pod" if pods == 1 else f"{pods} pods"


def _mebibytes(amount_: Fraction) -> str:
    return f"{float(amount_ / _MEBIBYTE):.4g} MiB"
