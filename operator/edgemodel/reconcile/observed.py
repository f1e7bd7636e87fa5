"""All that one decision may look at, gathered beforehand by ``edgemodel.cluster.gather``.

Everything here is a value: no client, no clock, no file. Live Kubernetes objects are plain dicts as the API server sent
them, with ``apiVersion`` and ``kind`` (which items of a list lack) filled in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from edgemodel.api.conditions import Reason
from edgemodel.api.meta import BEAT_SECONDS, BEATS_MISSED
from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Release
from edgemodel.rollout.evidence import CandidateEvidence

LiveObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """An artifact whose manifest was read, and what trust said about it under today's policies.

    ``refusal`` is None when every policy passed, or only Warn policies failed; then ``warnings`` says what they held
    against it.
    """

    digest: Digest
    image: str
    release: Release
    verified_by: tuple[str, ...] = ()
    refusal: tuple[Reason, str] | None = None
    warnings: tuple[str, ...] = ()
    stale: str | None = None
    """Set for the active version when its signed expiry has passed: it goes on serving and status says so."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """What spec.image stands for could not be found out; says nothing about what serves."""

    reason: Reason
    message: str
    stalled: bool = False
    """True when only a person can mend it, such as a reference that cannot be parsed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator was started with, as far as children depend on it."""

    server_image: str
    node_image: str
    image_pull_policy: str = "IfNotPresent"
    labels: Mapping[str, str] = field(default_factory=dict)
    store_budget: int | None = None
    """Bytes that each node's store may take; None leaves it to the agent."""
    rate_limit: int | None = None
    """Bytes a second that each node may download with; None means no limit."""


@dataclass(frozen=True, slots=True)
class LiveNode:
    """One Node of the cluster and what its agent tells."""

    node: LiveObject
    edge_node: LiveObject | None = None
    """The EdgeNode of the same name; None where no agent ever ran."""
    heard: datetime | None = None
    """When the agent last renewed its Lease."""
    patience: float = BEAT_SECONDS * BEATS_MISSED
    """Seconds after ``heard`` from which on it counts as silent."""


@dataclass(frozen=True, slots=True)
class GatewayPod:
    """One pod of the gateway, with an address and not ended."""

    name: str
    uid: str
    address: str
    node: str
    ready: bool
    """It takes requests, as its readiness probe says."""
    going: bool = False
    """It is being deleted; as long as it is ready it still answers."""
    listening: bool = True
    """It was seen to answer at this model's port. Looked at only where a live Service still leads to pods, and must not lead
    to this one before."""
    haproxy_port: int = 8404
    """HAProxy's own, where one sees whether it is there (``controller.gateway_health``)."""
    agent_port: int = 8083
    """The gateway's agent's."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One EdgeModel and everything that bears on it."""

    model: EdgeModel
    settings: Settings
    target: Judged | Unresolved
    """What spec.image stands for now."""
    active: Judged | None = None
    """The active slot's artifact under today's policies, when it is not the target."""
    children: tuple[LiveObject, ...] = ()
    """Live Deployments, Services, PodDisruptionBudgets, ConfigMaps, ServiceMonitors that this EdgeModel owns."""
    conflicts: tuple[str, ...] = ()
    """``Kind/name`` of objects that bear a child's name and belong to somebody else."""
    pods: tuple[LiveObject, ...] = ()
    """Live pods with this EdgeModel's label."""
    delivery_config: Mapping[str, str] = field(default_factory=dict)
    """Content of the ConfigMap from which the init container takes policies and registry settings."""
    service_monitors: bool = False
    """The cluster knows the kind ServiceMonitor."""
    nodes: tuple[LiveNode, ...] = ()
    """All Nodes of the cluster."""
    gateway: tuple[GatewayPod, ...] | None = None
    """The gateway's pods, by name; None where the operator is set to work without a gateway."""
    gateway_port: int | None = None
    """The port at which the gateway answers for this model; None without a gateway, or when all ports are taken."""
    foreign_slices: tuple[LiveObject, ...] = ()
    """EndpointSlices of the model's Service that are not the operator's: Kubernetes' own controllers make them."""
    closed: str = ""
    """Why no caller can be let in, though spec.access names who may call: a Secret is missing, or holds nothing of use."""
    evidence: CandidateEvidence | None = None
    """What was seen of the candidate's answers; None as long as nobody has looked."""
