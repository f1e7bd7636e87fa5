"""What a real API server (v1.34) makes of our children when it stores them: defaults, normal forms, metadata of its own.

Written down from the defaulting functions of k8s.io/kubernetes/pkg/apis/{apps,core,policy} and compared with the answers of
a v1.34 server to a dry run of the golden children; the control-plane tests use the real thing.
"""

import copy
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def stored(applied: Mapping[str, Any], uid: str = "0b1c") -> Object:
    """Return the object as a GET gives it after ``applied`` was applied."""
    live = copy.deepcopy(dict(applied))
    live["metadata"] |= {
        "uid": uid,
        "resourceVersion": "4711",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "edgemodel-operator", "operation": "Apply"}],
    }
    defaults = {"Deployment": _deployment, "Service": _service, "PodDisruptionBudget": _budget}.get(
        live["kind"]
    )
    if defaults is not None:
        defaults(live)
    return without_empty(live)


def _deployment(live: Object) -> None:
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
    template = live["spec"]["template"]
    pod = template["spec"]
    defaults = {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
    for key, value in defaults.items():
        pod.setdefault(key, value)
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                container[probe] = {
                    "successThreshold": 1,
                    "failureThreshold": 3,
                    "timeoutSeconds": 1,
                    **container[probe],
                }
                container[probe]["httpGet"].setdefault("scheme", "HTTP")
        for kind in ("requests", "limits"):
            amounts = container.get("resources", {}).get(kind, {})
            for name, value in amounts.items():
                amounts[name] = {"1000m": "1", "0.5": "500m", "1024Mi": "1Gi"}.get(str(value), str(value))
        for variable in container.get("env", ()):
            field = variable.get("valueFrom", {}).get("fieldRef")
            if field is not None:
                field.setdefault("apiVersion", "v1")
    for volume in pod["volumes"]:
        if "configMap" in volume:
            volume["configMap"].setdefault("defaultMode", 420)
    live["status"] = {"observedGeneration": 1}


def _service(live: Object) -> None:
    live["spec"] |= {
        "clusterIP": "10.43.0.7",
        "clusterIPs": ["10.43.0.7"],
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "sessionAffinity": "None",
    }
    live["status"] = {"loadBalancer": {}}


def _budget(live: Object) -> None:
    live["status"] = {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}


def without_empty(value: Any, field: str = "") -> Any:
    """Leave out what Go's omitempty leaves out: empty strings, maps and lists (an emptyDir is a pointer and stays)."""
    if isinstance(value, dict):
        kept = {key: without_empty(item, key) for key, item in value.items()}
        return {
            key: item
            for key, item in kept.items()
            if key in ("emptyDir", "loadBalancer", "resources") or item not in ("", {}, [], None)
        }
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value
