"""Which nodes may run a model's pods: the scheduler's rules about labels and taints, over the pod template.

Only what keeps a pod from a node for good counts: nodeSelector, required node affinity, taints that are not tolerated, a
cordon. What passes by itself (a node that is not ready, or short of memory) does not: such a node still is to hold its
models. Resources and pod (anti-)affinity are left to the scheduler.

Source of the rules: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/ and taint-and-toleration/,
component-helpers/scheduling/corev1 in k8s.io for what they say of malformed values: nothing matches.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgemodel.api.v1alpha1 import PodTemplate

_CORDONED = "node.kubernetes.io/unschedulable"
_PASSING = frozenset(
    {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/network-unavailable",
        "node.kubernetes.io/memory-pressure",
        "node.kubernetes.io/disk-pressure",
        "node.kubernetes.io/pid-pressure",
        "node.cloudprovider.kubernetes.io/uninitialized",
    }
)
"""Taints that Kubernetes sets and takes away by itself."""
_WHOLE = re.compile(r"[+-]?\d{1,19}")


def eligible(template: PodTemplate, node: Mapping[str, Any]) -> bool:
    """Tell whether pods of the template may run on a live Node."""
    meta, spec = node.get("metadata") or {}, node.get("spec") or {}
    labels = {str(key): str(value) for key, value in (meta.get("labels") or {}).items()}
    if any(labels.get(key) != value for key, value in template.node_selector.items()):
        return False
    if not _affine(template.affinity, labels, str(meta.get("name", ""))):
        return False
    return all(_tolerated(taint, template.tolerations) for taint in _taints(spec))


def _affine(affinity: Mapping[str, Any], labels: Mapping[str, str], name: str) -> bool:
    """Tell whether the required node affinity holds: any of its terms, of which each needs all it says."""
    required = _map(_map(affinity.get("nodeAffinity")).get("requiredDuringSchedulingIgnoredDuringExecution"))
    if not required:
        return True
    return any(_term(_map(term), labels, name) for term in _list(required.get("nodeSelectorTerms")))


def _term(term: Mapping[str, Any], labels: Mapping[str, str], name: str) -> bool:
    expressions, fields = _list(term.get("matchExpressions")), _list(term.get("matchFields"))
    if not expressions and not fields:
        return False  # a term without a requirement selects no node
    return all(_holds(_map(one), labels) for one in expressions) and all(
        _holds(_map(one), {"metadata.name": name}) for one in fields
    )


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(str(requirement.get("key", "")))
    values = [str(one) for one in _list(requirement.get("values"))]
    match requirement.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            have, bound = _integer(value), _integer(values[0] if len(values) == 1 else None)
            if have is None or bound is None:
                return False
            return have > bound if operator == "Gt" else have < bound
        case _:
            return False


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and _WHOLE.fullmatch(text) else None


def _taints(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the taints that keep pods away for good; a cordon is one even before its taint is set."""
    taints = [_map(one) for one in _list(spec.get("taints"))]
    if spec.get("unschedulable"):
        taints.append({"key": _CORDONED, "effect": "NoSchedule"})
    return [
        one
        for one in taints
        if one.get("effect") in ("NoSchedule", "NoExecute") and one.get("key") not in _PASSING
    ]


def _tolerated(taint: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    return any(_tolerates(_map(one), taint) for one in tolerations)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    effect, key = toleration.get("effect"), toleration.get("key")
    if effect and effect != taint.get("effect"):
        return False
    if key and key != taint.get("key"):
        return False
    match toleration.get("operator") or "Equal":
        case "Exists":
            return True  # with an empty key: everything
        case "Equal":
            return bool(key) and (toleration.get("value") or "") == (taint.get("value") or "")
        case _:
            return False


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
