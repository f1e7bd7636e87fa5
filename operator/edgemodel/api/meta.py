"""What all kinds share: group and version, labels, annotations, field managers, object metadata, conditions."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "edgemodel.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

CHILD_MANAGER = "edgemodel-operator"
"""Field manager of every child object."""
STATUS_MANAGER = "edgemodel-status"
"""Field manager of status."""
NODE_MANAGER = "edgemodel-node"
"""Field manager of an EdgeNode's status: the agent of that node."""

LEASE_PREFIX = "edgenode-"
"""A node's agent renews the Lease ``edgenode-<node>``, in the operator's namespace, as its sign of life."""
BEAT_SECONDS = 60.0
"""How often it does, unless it is told otherwise."""
BEATS_MISSED = 3
"""How many renewals in a row may be missing before the node counts as offline."""

LABEL_MODEL = f"{GROUP}/model"
"""On every child: the EdgeModel's name."""
LABEL_DIGEST = f"{GROUP}/digest"
"""On a version's Deployment and pods: the first 16 hex digits of the artifact's digest."""
LABELS_MANAGED = {"app.kubernetes.io/managed-by": CHILD_MANAGER}
"""On every child; watches select on it."""
ANNOTATION_IMAGE = f"{GROUP}/image"
"""On a version's Deployment and pods: the pinned reference, ``registry/repository@sha256:…``."""
ANNOTATION_MODEL_FILE = f"{GROUP}/model-file"
"""On pods that mount their model: the entry file, where the EdgeModel names one."""
ANNOTATION_RETRY = f"{GROUP}/retry"
"""On an EdgeModel: any new value asks for a rolled-back digest to be tried once more."""
ANNOTATION_PROMOTE = f"{GROUP}/promote"
"""On an EdgeModel: the digest of a candidate, or 12 hex digits of it or more, that is to take over without gate, steps and
window as soon as its pods are ready."""
ANNOTATION_ROLLBACK = f"{GROUP}/rollback"
"""On an EdgeModel: the digest of a version, or 12 hex digits of it or more, that is not to serve: a candidate is taken back,
an active one makes way for the last good one. It holds as long as the annotation stands."""

CSI_DRIVER = f"models.{GROUP}"
"""Name of the CSI driver by which the node agent gives pods their model."""
CSI_ATTRIBUTE_MODEL = "model"
"""Volume attribute: the EdgeModel's name, in the pod's namespace."""
CSI_ATTRIBUTE_DIGEST = "digest"
"""Volume attribute: digest of the artifact's manifest, ``sha256:…``."""

_DURATION = re.compile(r"(\d+)(us|ms|s|m|h|d)")
DURATION_PATTERN = r"^([0-9]+(ms|s|m|h|d))+$"
_SECONDS = {"us": 0.000001, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(duration: str) -> float:
    """Return the seconds in a duration such as ``1h30m``, ``5m``, ``0s``; days (``d``) are of 24 hours.

    Microseconds (``us``) are for the few fields whose pattern allows them.
    """
    return sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))


def _check_duration(value: str) -> str:
    if not re.match(DURATION_PATTERN, value):
        raise ValueError(f"expected a duration such as 30s, 5m or 1h30m, found {value!r}")
    return value


SHA256 = r"^sha256:[0-9a-f]{64}$"
DigestText = Annotated[str, Field(pattern=SHA256)]

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=64), AfterValidator(_check_duration)]
"""A length of time as users write it: ``30s``, ``5m``, ``1h30m``."""

ConditionStatus = Literal["True", "False", "Unknown"]


class Resource(BaseModel):
    """Base of all types: camelCase on the wire, immutable, documented by attribute docstrings."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        # A node agent reads three of forty types: the others' validators are never made there.
        defer_build=True,
    )


class Condition(Resource):
    """One statement about the object, as Kubernetes defines it."""

    type: str = Field(max_length=316)
    """What the statement is about."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: int | None = Field(default=None, ge=0)
    """The metadata.generation this was judged for."""
    last_transition_time: datetime
    """When status last changed."""
    reason: str = Field(min_length=1, max_length=1024)
    """Why, in one CamelCase word."""
    message: str = Field(max_length=32768)
    """Why, for a person: what happened, what still works, what to do."""


class OwnerMetadata(Resource):
    """The part of metadata that decisions read."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    deletion_timestamp: datetime | None = None
