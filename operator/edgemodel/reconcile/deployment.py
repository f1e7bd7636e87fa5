"""One Deployment for each version of the model: the node or an init container delivers it, a server answers with it.

A change of version is another Deployment (docs/adr/0005-one-deployment-per-version.md); a change of anything else is a
rolling update inside this one, which never takes a ready pod away before its successor is ready (Surge) or never holds
memory for one pod too many (StopFirst).
"""

import math
from collections.abc import Mapping
from typing import Any

from edgemodel.api.meta import (
    ANNOTATION_IMAGE,
    ANNOTATION_MODEL_FILE,
    CSI_ATTRIBUTE_DIGEST,
    CSI_ATTRIBUTE_MODEL,
    CSI_DRIVER,
    LABEL_DIGEST,
    seconds,
)
from edgemodel.api.v1alpha1 import EdgeModel, Slot
from edgemodel.reconcile.child import (
    Object,
    delivery_name,
    deployment_name,
    digest_label,
    metadata,
    own_labels,
    pod_selector,
    shown_version,
)
from edgemodel.reconcile.observed import Settings
from edgemodel.reconcile.server_variables import variables

PORT = 8080
USER = 65532
"""uid and gid of both images."""
GRACE_SECONDS = 30
"""The server stops being ready, waits about 5 s for load balancers to notice, then finishes what it has accepted."""
FETCH_REQUESTS = {"cpu": "50m", "memory": "64Mi"}
SERVER_REQUESTS = {"cpu": "100m", "memory": "128Mi"}
"""Enough for a small model on a small node; spec.server.resources overrides."""
LOCKED_DOWN = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def deployment(
    model: EdgeModel, settings: Settings, slot: Slot, replicas: int, *, mounts: bool = False
) -> Object:
    """Return the Deployment of one version at the given size; ``mounts`` says that nodes deliver."""
    spec, extra = model.spec, model.spec.pod_template
    surge = spec.rollout.strategy != "StopFirst"
    pinned = {ANNOTATION_IMAGE: slot.image}
    version = {LABEL_DIGEST: digest_label(slot.digest)}
    # Another entry file is another directory on the node: nothing else in the pod would tell that it has to be replaced.
    entry_file = {ANNOTATION_MODEL_FILE: slot.model_file} if mounts and slot.model_file else {}
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            # A node's files belong to all its pods, and are theirs to read as they are.
            **({} if mounts else {"fsGroup": USER}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({} if mounts else {"initContainers": [_fetch(model, settings, slot)]}),
        "containers": [_server(model, settings, slot)],
        "volumes": [
            _mount(model, slot) if mounts else {"name": "models", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            *([] if mounts else _delivery_volumes(model)),
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": pod_selector(model, slot)},
            }
        ],
    }
    for field, value in (
        ("nodeSelector", extra.node_selector),
        ("tolerations", extra.tolerations),
        ("affinity", extra.affinity),
        ("priorityClassName", extra.priority_class_name),
        ("runtimeClassName", extra.runtime_class_name),
    ):
        if value:
            pod[field] = value
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(
            model, settings, deployment_name(model, slot), labels=version, annotations=pinned
        ),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": max(2, math.ceil(seconds(spec.rollout.progress_deadline)) or 600),
            "selector": {"matchLabels": pod_selector(model, slot)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}
                if surge
                else {"maxSurge": 0, "maxUnavailable": 1},
            },
            "template": {
                "metadata": {
                    "labels": {**extra.labels, **own_labels(model), **version},
                    "annotations": {**extra.annotations, **pinned, **entry_file},
                },
                "spec": pod,
            },
        },
    }


def _fetch(model: EdgeModel, settings: Settings, slot: Slot) -> Object:
    """Return the init container: it pulls the pinned artifact, verifies it again and leaves it in ``/models``."""
    secrets = [{"name": "pull-secrets", "mountPath": "/etc/edgemodel-secrets", "readOnly": True}]
    return {
        "name": "fetch",
        "image": settings.node_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": [
            *("node", "fetch"),
            *("--reference", slot.image),
            *("--config-dir", "/etc/edgemodel"),
            *("--secrets-dir", "/etc/edgemodel-secrets"),
            *("--output", "/models"),
            *("--name", model.metadata.name),
            # What a publisher or a user wrote stays in one word with its flag: it may begin with a dash.
            f"--version={shown_version(slot)}",
            *((f"--model-file={slot.model_file}",) if slot.model_file else ()),
        ],
        "resources": {"requests": FETCH_REQUESTS},
        "securityContext": LOCKED_DOWN,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "models", "mountPath": "/models"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (a volume of the pod's own)
            {"name": "delivery", "mountPath": "/etc/edgemodel", "readOnly": True},
            *(secrets if model.spec.pull_secrets else ()),
        ],
    }


def _server(model: EdgeModel, settings: Settings, slot: Slot) -> Object:
    """Return the container that loads the model directory and answers."""
    spec = model.spec.server
    container: Object = {
        "name": "server",
        "image": spec.image or settings.server_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": [
            *("--model", "/models"),
            *("--name", model.metadata.name),
            f"--model-version={shown_version(slot)}",
            *("--digest", slot.digest),
            *("--port", str(PORT)),
            *(("--threads", str(spec.threads)) if spec.threads else ()),
        ],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": _resources(spec.resources),
        "securityContext": LOCKED_DOWN,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # Asked every second so that a small model is ready at once; ten minutes, so that a large one may load.
        "startupProbe": _probe("ready", periodSeconds=1, timeoutSeconds=1, failureThreshold=600),
        "readinessProbe": _probe("ready", periodSeconds=2, timeoutSeconds=2, failureThreshold=3),
        "livenessProbe": _probe("live", periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        "volumeMounts": [
            {"name": "models", "mountPath": "/models", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (a volume of the pod's own)
        ],
    }
    if env := variables(spec):
        container["env"] = env
    return container


def _probe(endpoint: str, **timing: int) -> Object:
    return {"httpGet": {"path": f"/v2/health/{endpoint}", "port": "http"}, **timing}


def _mount(model: EdgeModel, slot: Slot) -> Object:
    """Return the volume that the node's agent gives to pods of this version, whole and verified."""
    attributes = {CSI_ATTRIBUTE_MODEL: model.metadata.name, CSI_ATTRIBUTE_DIGEST: slot.digest}
    csi = {"driver": CSI_DRIVER, "readOnly": True, "volumeAttributes": attributes}
    return {"name": "models", "csi": csi}


def _delivery_volumes(model: EdgeModel) -> list[Object]:
    """Return what the init container reads: policies, registry settings, pull secrets."""
    return [
        {"name": "delivery", "configMap": {"name": delivery_name(model)}},
        *_secrets_volume(model),
    ]


def _secrets_volume(model: EdgeModel) -> list[Object]:
    """Return one volume with each pull secret in a numbered folder, in the order in which they are tried.

    A Secret that does not exist is left out rather than holding the pod: fetch then says ``AuthenticationFailed`` where a
    person looks, while a pod that waits for a volume says nothing in its status.
    """
    if not model.spec.pull_secrets:
        return []
    sources = [
        {
            "secret": {
                "name": secret.name,
                "optional": True,
                "items": [{"key": ".dockerconfigjson", "path": f"{number}/.dockerconfigjson"}],
            }
        }
        for number, secret in enumerate(model.spec.pull_secrets)
    ]
    return [{"name": "pull-secrets", "projected": {"defaultMode": 0o440, "sources": sources}}]


def _resources(override: Mapping[str, Any]) -> Object:
    """Return the defaults with the user's own laid over them; a limit of theirs replaces our request of the same thing.

    (A default request above the user's limit would be refused; without a request Kubernetes takes the limit.)
    """
    limits = override.get("limits") or {}
    requests = {key: value for key, value in SERVER_REQUESTS.items() if key not in limits}
    merged = {**override, "requests": {**requests, **(override.get("requests") or {})}}
    return {key: value for key, value in merged.items() if value}
