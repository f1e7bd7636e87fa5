"""EdgeModels and pods as the API server tells of them."""

from typing import Any

ONE, TWO = "1" * 64, "2" * 64


def model(
    name: str = "detector",
    *,
    port: int | None = 20001,
    active: str | None = ONE,
    candidate: str | None = None,
    weight: int | None = None,
    made: str = "2026-01-01T00:00:00Z",
    **spec: Any,
) -> dict[str, Any]:
    slots = {
        slot: {"digest": f"sha256:{digest}", "image": f"r/m@sha256:{digest}"}
        for slot, digest in (("active", active), ("candidate", candidate))
        if digest
    }
    return {
        "metadata": {"namespace": "vision", "name": name, "uid": name, "creationTimestamp": made},
        "spec": {"image": "r/m:1", **spec},
        "status": {
            "slots": slots,
            **({"gatewayPort": port} if port is not None else {}),
            **({"rollout": {"weight": weight}} if weight is not None else {}),
        },
    }


def pod(
    number: int,
    version: str = ONE,
    *,
    of: str = "detector",
    ready: bool = True,
    going: bool = False,
    address: str | None = None,
    phase: str = "Running",
) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "vision",
            "name": f"{of}-{number}",
            "uid": f"{of}-{number}",
            "labels": {"edgemodel.io/model": of, "edgemodel.io/digest": version[:16]},
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}),
        },
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {
            "phase": phase,
            "podIP": f"10.42.0.{number}" if address is None else address,
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }
