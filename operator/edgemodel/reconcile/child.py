"""What all children share: names, labels, owner, and the mark of what was applied.

Names are deterministic, so that a second pass, or a second operator, finds the same objects. Every child is owned by its
EdgeModel and goes with it by garbage collection; there are no finalizers.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from edgemodel.api.meta import API_VERSION, GROUP, LABEL_DIGEST, LABEL_MODEL, LABELS_MANAGED
from edgemodel.api.v1alpha1 import EdgeModel, Slot
from edgemodel.reconcile.observed import Settings

Object = dict[str, Any]

ANNOTATION_APPLIED = f"{GROUP}/applied"
"""On every child: hash of the object as it was applied; tells that a field which is no longer set must be taken away."""


def digest_label(digest: str) -> str:
    """Return the value of the digest label: 16 hex digits of ``sha256:…``."""
    return digest.removeprefix("sha256:")[:16]


def deployment_name(model: EdgeModel, slot: Slot) -> str:
    """Return ``<model>-<8 hex digits>``: 59 characters at most, since an EdgeModel's name has 50 at most."""
    return f"{model.metadata.name}-{digest_label(slot.digest)[:8]}"


def delivery_name(model: EdgeModel) -> str:
    """Return the name of the ConfigMap that the init container reads."""
    return f"{model.metadata.name}-delivery"


def shown_version(slot: Slot) -> str:
    """Return the version the publisher signed, or 16 hex digits of the digest where none was."""
    return slot.version or slot.digest.removeprefix("sha256:")[:16]


def pod_selector(model: EdgeModel, slot: Slot) -> dict[str, str]:
    """Return the labels by which one version's pods are known."""
    return {LABEL_MODEL: model.metadata.name, LABEL_DIGEST: digest_label(slot.digest)}


def own_labels(model: EdgeModel) -> dict[str, str]:
    """Return the labels that every child and every pod bears."""
    return {
        "app.kubernetes.io/name": "edgemodel-server",
        "app.kubernetes.io/instance": model.metadata.name,
        **LABELS_MANAGED,
        LABEL_MODEL: model.metadata.name,
    }


def metadata(
    model: EdgeModel,
    settings: Settings,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """Return a child's metadata: the operator's labels win over ``settings.labels``."""
    return {
        "name": name,
        "namespace": model.metadata.namespace,
        "labels": {**settings.labels, **own_labels(model), **(labels or {})},
        "annotations": dict(annotations or {}),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "EdgeModel",
                "name": model.metadata.name,
                "uid": model.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def sealed(child: Object) -> Object:
    """Return the child with the annotation that holds the hash of all the rest of it."""
    text = json.dumps(child, sort_keys=True, separators=(",", ":"), default=str)
    mark = hashlib.sha256(text.encode()).hexdigest()[:16]
    meta = child["metadata"]
    return {
        **child,
        "metadata": {**meta, "annotations": {**meta["annotations"], ANNOTATION_APPLIED: mark}},
    }
