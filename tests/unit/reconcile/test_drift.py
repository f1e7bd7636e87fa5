"""Drift, one sentence a case: what is a difference and what is only another spelling."""

from typing import Any

import pytest

from edgemodel.reconcile.drift import differs
from edgemodel.reconcile.quantity import amount

SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a field that others added": ({"a": 1}, {"a": 1, "b": 2}),
    "a default deep inside": ({"spec": {"p": {"x": 1}}}, {"spec": {"p": {"x": 1, "y": 2}}}),
    "empty is absent": ({"a": {}, "b": [], "c": None, "d": ""}, {}),
    "cores in thousandths": ({"requests": {"cpu": "1000m"}}, {"requests": {"cpu": "1"}}),
    "half a core": ({"limits": {"cpu": 0.5}}, {"limits": {"cpu": "500m"}}),
    "bytes in full": ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1073741824"}}),
    "a whole number of devices": ({"limits": {"nvidia.com/gpu": 1}}, {"limits": {"nvidia.com/gpu": "1"}}),
    "a size limit": ({"emptyDir": {"sizeLimit": "1024Mi"}}, {"emptyDir": {"sizeLimit": "1Gi"}}),
    "a container that was injected": (
        {"containers": [{"name": "server", "image": "a"}]},
        {"containers": [{"name": "mesh"}, {"name": "server", "image": "a"}]},
    ),
    "mounts that others added": (
        {"volumeMounts": [{"name": "m", "mountPath": "/a"}]},
        {
            "volumeMounts": [
                {"name": "t", "mountPath": "/b"},
                {"name": "m", "mountPath": "/a", "readOnly": True},
            ]
        },
    ),
}
DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a missing field": ({"a": 1}, {}),
    "another value": ({"a": 1}, {"a": 2}),
    "false is not absent": ({"allowPrivilegeEscalation": False}, {}),
    "false is not zero": ({"a": False}, {"a": 0}),
    "a text is not a number": ({"a": "1"}, {"a": 1}),
    "a quantity elsewhere is only text": ({"annotations": {"a": "1000m"}}, {"annotations": {"a": "1"}}),
    "another amount": ({"requests": {"cpu": "100m"}}, {"requests": {"cpu": "1"}}),
    "an amount that is none": ({"requests": {"cpu": "much"}}, {"requests": {"cpu": "much more"}}),
    "an argument more": ({"args": ["a"]}, {"args": ["a", "b"]}),
    "an argument less": ({"args": ["a", "b"]}, {"args": ["a"]}),
    "arguments in another order": ({"args": ["a", "b"]}, {"args": ["b", "a"]}),
    "a container that is gone": ({"containers": [{"name": "server"}]}, {"containers": [{"name": "mesh"}]}),
    "a container's image": (
        {"containers": [{"name": "server", "image": "a"}]},
        {"containers": [{"name": "server", "image": "b"}]},
    ),
    "a variable's value": ({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A", "value": "x"}]}),
    "a list that became something else": ({"args": ["a"]}, {"args": "a"}),
    "a map that became something else": ({"a": {"b": 1}}, {"a": [1]}),
    "a key too many in a Service's selector": ({"selector": {"a": "1"}}, {"selector": {"a": "1", "b": "2"}}),
    "a key too many in a label selector": (
        {"selector": {"matchLabels": {"a": "1"}}},
        {"selector": {"matchLabels": {"a": "1", "b": "2"}}},
    ),
    "a key too many in a node selector": (
        {"nodeSelector": {"a": "1"}},
        {"nodeSelector": {"a": "1", "b": "2"}},
    ),
}


@pytest.mark.parametrize(("desired", "live"), SAME.values(), ids=SAME.keys())
def test_is_no_difference(desired: dict[str, Any], live: dict[str, Any]) -> None:
    assert not differs(desired, live)


@pytest.mark.parametrize(("desired", "live"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_is_a_difference(desired: dict[str, Any], live: dict[str, Any]) -> None:
    assert differs(desired, live)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1),
        ("500m", 0.5),
        ("-1", -1),
        ("1k", 1000),
        ("1Ki", 1024),
        ("2Ei", 2 * 1024**6),
        ("1E", 10**18),
        ("1e3", 1000),
        ("1E-2", 0.01),
        (2, 2),
        ("", None),
        ("m", None),
        ("1 Gi", None),
        ("0x1", None),
        ("1e999999999", None),
        ("9" * 10_000, None),
        (True, None),
        (None, None),
    ],
)
def test_quantities(text: object, expected: float | None) -> None:
    found = amount(text)
    assert found is None if expected is None else found is not None and float(found) == expected
