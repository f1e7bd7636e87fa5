"""Which nodes may run a pod, one sentence a case; the rules are the scheduler's."""

from typing import Any

import pytest

from edgemodel.api.v1alpha1 import PodTemplate
from edgemodel.reconcile.eligibility import eligible

NODE: dict[str, Any] = {
    "metadata": {"name": "cam-1", "labels": {"zone": "yard", "cores": "4", "camera": ""}},
    "spec": {},
}
EDGE = {"key": "edge", "value": "true", "effect": "NoSchedule"}


def node(**spec: Any) -> dict[str, Any]:
    return {**NODE, "spec": spec}


def required(*terms: dict[str, Any]) -> dict[str, Any]:
    selector = {"nodeSelectorTerms": list(terms)}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}}


def label(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def field(operator: str, *values: str, key: str = "metadata.name") -> dict[str, Any]:
    return {"matchFields": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("template", "fits"),
    [
        ({}, True),
        ({"nodeSelector": {"zone": "yard"}}, True),
        ({"nodeSelector": {"zone": "hall"}}, False),
        ({"nodeSelector": {"zone": "yard", "gpu": "yes"}}, False),
        ({"nodeSelector": {"camera": ""}}, True),
        ({"nodeSelector": {"absent": ""}}, False),
        (required(label("zone", "In", "hall", "yard")), True),
        (required(label("zone", "In", "hall")), False),
        (required(label("zone", "NotIn", "hall")), True),
        (required(label("absent", "NotIn", "hall")), True),
        (required(label("zone", "NotIn", "yard")), False),
        (required(label("camera", "Exists")), True),
        (required(label("absent", "Exists")), False),
        (required(label("absent", "DoesNotExist")), True),
        (required(label("camera", "DoesNotExist")), False),
        (required(label("cores", "Gt", "3")), True),
        (required(label("cores", "Gt", "4")), False),
        (required(label("cores", "Lt", "5")), True),
        (required(label("cores", "Lt", "4")), False),
        (required(label("absent", "Gt", "3")), False),
        (required(label("zone", "Gt", "3")), False),
        (required(label("cores", "Lt", "many")), False),
        (required(label("cores", "Gt", "1", "2")), False),
        (required(label("cores", "Near", "4")), False),
        (required(field("In", "cam-1")), True),
        (required(field("In", "cam-2")), False),
        (required(field("NotIn", "cam-2")), True),
        (required(field("In", "cam-1", key="metadata.uid")), False),
        (required({**label("zone", "In", "yard"), **field("In", "cam-2")}), False),
        (required(label("zone", "In", "hall"), field("In", "cam-1")), True),
        (required({}), False),
        (required({}, label("zone", "Exists")), True),
        (required(), False),
        ({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}}, True),
    ],
)
def test_labels_and_fields(template: dict[str, Any], fits: bool) -> None:
    assert eligible(PodTemplate.model_validate(template), NODE) is fits


@pytest.mark.parametrize(
    ("spec", "tolerations", "fits"),
    [
        ({"taints": [EDGE]}, [], False),
        ({"taints": [EDGE]}, [{"key": "edge", "value": "true", "effect": "NoSchedule"}], True),
        ({"taints": [EDGE]}, [{"key": "edge", "operator": "Equal", "value": "true"}], True),
        ({"taints": [EDGE]}, [{"key": "edge", "value": "false"}], False),
        ({"taints": [EDGE]}, [{"key": "edge", "operator": "Exists"}], True),
        ({"taints": [EDGE]}, [{"key": "edge", "operator": "Exists", "effect": "NoExecute"}], False),
        ({"taints": [EDGE]}, [{"operator": "Exists"}], True),
        ({"taints": [EDGE]}, [{"operator": "Exists", "effect": "NoSchedule"}], True),
        ({"taints": [EDGE]}, [{"value": "true"}], False),
        ({"taints": [EDGE]}, [{"key": "other", "operator": "Exists"}], False),
        ({"taints": [EDGE]}, [{"key": "edge", "operator": "Gt", "value": "1"}], False),
        ({"taints": [{"key": "edge", "effect": "NoSchedule"}]}, [{"key": "edge"}], True),
        ({"taints": [{**EDGE, "effect": "NoExecute"}]}, [], False),
        ({"taints": [{**EDGE, "effect": "PreferNoSchedule"}]}, [], True),
        (
            {"taints": [EDGE, {"key": "b", "effect": "NoExecute"}]},
            [{"key": "edge", "operator": "Exists"}],
            False,
        ),
        ({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}, [], True),
        ({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]}, [], True),
        ({"taints": [{"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]}, [], True),
        ({"unschedulable": True}, [], False),
        ({"unschedulable": True}, [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}], True),
        ({"unschedulable": False}, [], True),
    ],
)
def test_taints_and_cordons(spec: dict[str, Any], tolerations: list[dict[str, Any]], fits: bool) -> None:
    assert eligible(PodTemplate.model_validate({"tolerations": tolerations}), node(**spec)) is fits


@pytest.mark.parametrize("affinity", [{"nodeAffinity": 1}, {"nodeAffinity": {"x": []}}, {}])
def test_an_affinity_that_requires_nothing_keeps_nobody_away(affinity: dict[str, Any]) -> None:
    assert eligible(PodTemplate.model_validate({"affinity": affinity}), NODE)
