"""What the gateway keeps of an EdgeModel and of a pod: what routes depend on, so a ticking status is no change. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]


def model(found: Object) -> Object:
    """Return an EdgeModel's part that routes depend on."""
    meta, status = _map(found.get("metadata")), _map(found.get("status"))
    rollout = _map(status.get("rollout"))
    return {
        "metadata": _part(meta, ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp")),
        "spec": _part(_map(found.get("spec")), ("image", "traffic", "access")),
        "status": {
            **_part(status, ("slots", "gatewayPort")),
            **(
                {"rollout": {"weight": rollout.get("weight", 0), "step": rollout.get("step", 0)}}
                if rollout
                else {}
            ),
        },
    }


def pod(found: Object) -> Object:
    """Return a pod's part that routes depend on."""
    meta, spec, status = _map(found.get("metadata")), _map(found.get("spec")), _map(found.get("status"))
    return {
        "metadata": _part(meta, ("name", "namespace", "uid", "labels", "deletionTimestamp")),
        "spec": {"containers": [{"ports": one.get("ports") or []} for one in _maps(spec.get("containers"))]},
        "status": {
            **_part(status, ("podIP", "phase")),
            "conditions": [
                _part(one, ("type", "status"))
                for one in _maps(status.get("conditions"))
                if one.get("type") == "Ready"
            ],
        },
    }


def _part(found: Mapping[str, Any], keys: Iterable[str]) -> Object:
    return {key: found[key] for key in keys if key in found}


def _map(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _maps(found: object) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
