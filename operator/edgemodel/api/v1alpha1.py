"""``edgemodel.io/v1alpha1``: the kind ``EdgeModel``; ``EdgeNode`` and ``ModelTrustPolicy`` have modules of their own.

These types are the API: the CRDs, their field docs, defaults and limits, and the reference page are generated from them
(``edgemodel.api.crd``). A field exists from the day the operator acts on it, never before.
Rules that span fields are CEL rules in ``edgemodel.api.crd``; the API server enforces them.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from edgemodel.api.edge_node import TransferKind
from edgemodel.api.meta import API_VERSION, Condition, DigestText, Duration, OwnerMetadata, Resource
from edgemodel.api.rollout import RolloutSpec, RolloutStatus
from edgemodel.api.traffic import Access, Traffic

FreeForm = dict[str, Any]
"""A Kubernetes type that is handed on as it is (the API server checks it when the child is applied)."""


class PullSecret(Resource):
    """Names a Secret with registry credentials."""

    name: str = Field(min_length=1, max_length=253)
    """Name of a kubernetes.io/dockerconfigjson Secret in the same namespace."""


class BatchingSpec(Resource):
    """How requests share runs of the model. What is empty, the server calibrates when it has loaded the model."""

    max_batch_size: int | None = Field(default=None, ge=1, le=4096)
    """Most rows of a run that several requests share; 1 computes each request by itself."""
    max_queue_delay: str | None = Field(default=None, pattern=r"^([0-9]{1,4}ms|[0-9]s)$", max_length=6)
    """Longest time that a request waits for others to share its run, as in 2ms; 0ms never waits. It is spent only while that
    pays off."""


class CacheSpec(Resource):
    """Answers that are kept and given again to equal requests. Not for models that are random on purpose."""

    max_bytes: int = Field(ge=1, le=1 << 40)
    """Memory for kept answers in each pod; it counts towards the container's memory limit."""
    ttl: Duration = "1m"
    """How long an answer may be given again; 0s for as long as there is room."""


class ServerSpec(Resource):
    """How the inference server runs."""

    image: str | None = Field(default=None, max_length=512)
    """Container image of the inference server; the operator's own choice when empty."""
    resources: FreeForm = Field(default_factory=dict)
    """Requests and limits of the server container, as in a Pod."""
    threads: int | None = Field(default=None, ge=1, le=256)
    """Threads that one run of the model uses; when empty, the server measures which number within the CPU limit is best."""
    processes: int | None = Field(default=None, ge=0, le=64)
    """Processes of each pod that serve the model, for models so small that reading and writing requests limits them; each
    takes some 40 MB more. 0 for as many as the CPU limit, memory and the model allow; 1 when empty."""
    busy_poll: str | None = Field(default=None, pattern=r"^([0-9]{1,7}us|[0-9]{1,4}ms|[0-9]s)$", max_length=9)
    """Longest time that the server stays awake for the next request after an answer, as in 200us, where requests tend to
    come at once; 0us lets it sleep. The server's own choice, 200us, when empty."""
    batching: BatchingSpec = Field(default_factory=BatchingSpec)
    """How requests share runs of the model."""
    cache: CacheSpec | None = None
    """Answers that are kept and given again to equal requests; none when empty."""
    memory_mode: Literal["Standard", "Low"] = "Standard"
    """Low keeps weights in their file, where the kernel can drop them and pods share them, at a price in time."""
    providers: list[Annotated[str, Field(pattern=r"^[A-Za-z]{1,60}$")]] = Field(
        default_factory=list, max_length=8
    )
    """Execution providers of ONNX Runtime, the preferred one first, as in cuda; the CPU is what remains."""
    extra_env: list[FreeForm] = Field(default_factory=list, max_length=64)
    """More environment variables of the server container, as in a Pod."""


class PodTemplate(Resource):
    """What to add to the pods."""

    labels: dict[str, str] = Field(default_factory=dict)
    """Labels to add; the operator's own win."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations to add; the operator's own win."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have, as in a Pod."""
    tolerations: list[FreeForm] = Field(default_factory=list, max_length=64)
    """Taints to tolerate, as in a Pod."""
    affinity: FreeForm = Field(default_factory=dict)
    """Scheduling constraints, as in a Pod."""
    priority_class_name: str | None = Field(default=None, max_length=253)
    """Priority class of the pods."""
    runtime_class_name: str | None = Field(default=None, max_length=253)
    """Runtime class of the pods."""


class IntegritySpec(Resource):
    """How a node makes sure that what it holds is still what was verified."""

    recheck_interval: Duration = "24h"
    """How often a node hashes the files again; 0s means never. On a mismatch its pods are moved and the files come anew."""


class EdgeModelSpec(Resource):
    """What is wanted: which model, how many pods, how it changes."""

    image: str = Field(min_length=1, max_length=512)
    """OCI reference of the model artifact: registry/repository:tag, or @sha256:… to pin it. A tag is resolved to a digest
    once per poll and pinned in status."""
    poll_interval: Duration = "5m"
    """How often a tag is resolved again; 0s means only when the spec changes."""
    pull_secrets: list[PullSecret] = Field(default_factory=list, max_length=8)
    """Registry credentials, tried in order."""
    model_file: str | None = Field(default=None, max_length=512)
    """Entry file inside the artifact; needed when it holds more than one .onnx file."""
    replicas: int = Field(default=1, ge=0, le=1000)
    """Number of inference pods."""
    delivery: Literal["Node", "Pod"] | None = None
    """How the artifact reaches the pods. Node: the agent of each node brings and verifies it before any pod is touched, and
    pods mount it read-only. Pod: an init container pulls and verifies it into the pod's own volume. When empty, Node if
    every node that may run the pods has an agent, else Pod; what runs stays with what it was started with."""
    server: ServerSpec = Field(default_factory=ServerSpec)
    """How the inference server runs."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
    """What to add to the pods."""
    rollout: RolloutSpec = Field(default_factory=RolloutSpec)
    """How a new version takes over, and when it is taken back."""
    traffic: Traffic = Field(default_factory=Traffic)
    """How requests are led to pods."""
    access: Access | None = None
    """Who may call the model; everybody, when empty."""
    integrity: IntegritySpec = Field(default_factory=IntegritySpec)
    """How a node makes sure that what it holds is still what was verified."""
    suspend: bool = False
    """Reconcile nothing; what runs goes on running."""


class Slot(Resource):
    """One version of the model: what it is and who vouched for it."""

    digest: DigestText
    """sha256 of the artifact's manifest."""
    image: str
    """The pinned reference it is pulled by, registry/repository@sha256:…"""
    version: str = ""
    """The version the publisher signed, for people."""
    sequence: int | None = None
    """The monotonic number the publisher signed."""
    verified_by: list[str] = Field(default_factory=list)
    """policy/authority of each signature that counted."""
    model_file: str | None = None
    """spec.modelFile when this version was chosen."""
    since: datetime | None = None
    """When the version took this slot."""
    delivered: datetime | None = None
    """When the nodes had it; none with delivery Pod, and until then no pod of it is made."""
    tries: int = 0
    """How many times it was started."""


class Slots(Resource):
    """Which version serves, which is tried, which would be gone back to."""

    active: Slot | None = None
    """Receives the requests."""
    candidate: Slot | None = None
    """Is being started and judged."""
    last_good: Slot | None = None
    """Served before; what a rollback returns to."""


class EarlierRollback(Resource):
    """A version that was taken back before the last one was, and is not tried again either."""

    digest: DigestText
    """The version."""
    reason: str = Field(max_length=1024)
    """Why, in one word."""
    message: str = Field(default="", max_length=512)
    """Why, for a person."""
    at: datetime
    """When."""


class RolledBack(Resource):
    """A version that was tried and taken back; not tried again until asked."""

    digest: DigestText
    """The version."""
    reason: str = Field(max_length=1024)
    """Why, in one word."""
    message: str = Field(default="", max_length=4096)
    """Why, for a person."""
    at: datetime
    """When."""
    retry: str = ""
    """The value of the retry annotation that has been honoured."""
    generation: int = 0
    """metadata.generation when it was taken back; a later one lifts the ban."""
    earlier: list[EarlierRollback] = Field(default_factory=list, max_length=8)
    """What was taken back before, under the same spec and the same retry annotation, the latest first."""


class Tag(Resource):
    """What spec.image meant when it was last resolved to something new."""

    ref: str
    """spec.image as written."""
    digest: DigestText
    """The digest it stood for."""
    resolved_at: datetime
    """When it was first seen to stand for it."""


class NodeCounts(Resource):
    """How many nodes may run the pods, and how many have the newest verified version."""

    total: int = 0
    """Nodes that may run the pods."""
    ready: int = 0
    """Of these, nodes that hold the version and are online."""
    offline: int = 0
    """Of these, nodes whose agent has not been heard of, or that are not ready."""
    summary: str = Field(default="", max_length=32)
    """Ready of total, for people, such as 3/4."""


class NodeState(Resource):
    """How far the newest verified version is on one node."""

    node: str = Field(max_length=253)
    """Name of the node."""
    digest: DigestText
    """The version."""
    state: Literal["Pending", "Downloading", "Verifying", "Ready", "Failed", "Offline"]
    """How far it is; Offline when the node is not heard of."""
    reason: str = Field(default="", max_length=128)
    """Why, in one word."""
    last_seen: datetime | None = None
    """When an offline node was last heard of."""


class Transfer(Resource):
    """What it took to bring the newest verified version to the nodes, all nodes together."""

    bytes: int = 0
    """Bytes that have come, in steps of 5 %."""
    total: int = 0
    """Bytes that were to come."""
    saved_bytes: int = 0
    """Bytes that did not have to come."""
    kind: TransferKind = ""
    """Delta when any node applied one, else how it came."""
    fallback_reason: str = Field(default="", max_length=512)
    """Why a node did not use the delta it was offered."""


class EdgeModelStatus(Resource):
    """What is."""

    observed_generation: int = 0
    """The metadata.generation that this status speaks of."""
    replicas: int = 0
    """Pods of the active version."""
    ready_replicas: int = 0
    """Pods of the active version that answer."""
    selector: str = ""
    """Label selector of the pods, for kubectl scale and autoscalers."""
    url: str = ""
    """Where the model answers inside the cluster."""
    gateway_port: int | None = Field(default=None, ge=1, le=65535)
    """Port at which the gateway's pods answer for this model; it stays when the gateway is turned off."""
    tag: Tag | None = None
    """What spec.image stands for."""
    slots: Slots = Field(default_factory=Slots)
    """Versions by role."""
    rollout: RolloutStatus | None = None
    """How far the candidate has come; none when there is none."""
    rolled_back: RolledBack | None = None
    """The last version that was taken back."""
    highest_sequence: int | None = None
    """Highest sequence that was ever active: nothing older is let in."""
    nodes: NodeCounts | None = None
    """How many nodes have the newest verified version; none with delivery Pod."""
    node_statuses: list[NodeState] = Field(default_factory=list, max_length=50)
    """How far each node is, those that are not ready first; at most 50."""
    transfer: Transfer | None = None
    """What it took to bring it; none with delivery Pod."""
    last_verified_time: datetime | None = None
    """When the active version's signature was first found good under the present policies."""
    conditions: list[Condition] = Field(default_factory=list, max_length=32)
    """Statements by type; start with Ready."""


class EdgeModel(Resource):
    """A machine-learning model that is pulled, verified, served and kept up to date on this cluster."""

    api_version: str = API_VERSION
    kind: Literal["EdgeModel"] = "EdgeModel"
    metadata: OwnerMetadata
    spec: EdgeModelSpec
    """What is wanted."""
    status: EdgeModelStatus = Field(default_factory=EdgeModelStatus)
    """What is."""
