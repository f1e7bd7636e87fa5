"""The kind ``EdgeNode``: what one node's agent is to hold, and what it says about itself.

The operator writes spec, whole, by server-side apply; the agent of that one node writes status and nothing else. So two
writers meet in one object and never in one field. What ticks in status (bytes) moves in coarse steps; the sign of life is a
Lease (``edgemodel.api.meta.LEASE_PREFIX``), not a field here.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from edgemodel.api.meta import API_VERSION, Condition, DigestText, Duration, OwnerMetadata, Resource

Role = Literal["Active", "Candidate", "LastGood"]
State = Literal["Pending", "Downloading", "Verifying", "Ready", "Failed"]
TransferKind = Literal["Full", "Delta", "Imported", ""]

Bytes = Annotated[int, Field(ge=0)]


class Window(Resource):
    """A span of time that comes again and again."""

    schedule: str = Field(min_length=9, max_length=100)
    """When it opens: five cron fields, minute hour day-of-month month day-of-week, such as 0 2 * * 1-5."""
    duration: Duration
    """How long it stays open, such as 3h30m."""
    time_zone: str = Field(default="UTC", min_length=1, max_length=64)
    """Name in the IANA time zone database, such as Europe/Vienna, in which the schedule is read."""


class WantedModel(Resource):
    """One version of one model that the node is to hold."""

    namespace: str = Field(min_length=1, max_length=63)
    """Namespace of the EdgeModel; only its pods may mount this entry."""
    name: str = Field(min_length=1, max_length=63)
    """Name of the EdgeModel."""
    digest: DigestText
    """sha256 of the artifact's manifest."""
    image: str = Field(min_length=1, max_length=1024)
    """The pinned reference it is pulled by, registry/repository@sha256:…"""
    role: Role
    """What it is to its EdgeModel: serves, is to serve next, or served before. The first two are brought before the
    last; all three are kept from being evicted."""
    model_file: str | None = Field(default=None, max_length=512)
    """Entry file inside the artifact, where the EdgeModel names one."""
    policies: list[Annotated[str, Field(max_length=253)]] = Field(default_factory=list, max_length=64)
    """Names in spec.policies of those that govern it; with none it is refused."""
    sealed_pull_secrets: str | None = Field(default=None, max_length=262_144)
    """Registry credentials, sealed to status.sealingKey: only this node's agent can open them."""
    window: Window | None = None
    """When it may be downloaded; at any time when empty. Only a candidate has one."""
    recheck_interval: Duration = "24h"
    """How often its files are hashed again; 0s means never."""


class NodePolicy(Resource):
    """One trust policy with its keys, as the operator read it."""

    name: str = Field(min_length=1, max_length=253)
    """Name of the ModelTrustPolicy."""
    document: str = Field(max_length=262_144)
    """The policy as JSON; holds public keys only."""


class EdgeNodeSpec(Resource):
    """What the node is to hold. Written by the operator."""

    models: list[WantedModel] = Field(default_factory=list, max_length=512)
    """Versions of models to hold, ready to be mounted."""
    policies: list[NodePolicy] = Field(default_factory=list, max_length=128)
    """Trust policies that models above are judged by, again, on the node."""
    store_budget: int | None = Field(default=None, ge=0)
    """Bytes that the node's store may take; the agent's own setting when empty."""
    rate_limit: int | None = Field(default=None, ge=1)
    """Bytes a second that all downloads of the node may take together; the agent's own setting when empty."""


class Capabilities(Resource):
    """What the node can run."""

    architecture: str = Field(default="", max_length=64)
    """As Kubernetes writes it: amd64, arm64, arm."""
    cpu_features: list[Annotated[str, Field(max_length=64)]] = Field(default_factory=list, max_length=512)
    """Instruction sets that matter to inference, such as avx2, avx512_vnni, asimddp."""
    memory_bytes: Bytes = 0
    """Memory of the node."""
    execution_providers: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list, max_length=64
    )
    """Execution providers of ONNX Runtime that the server image has."""
    accelerators: list[Annotated[str, Field(max_length=253)]] = Field(default_factory=list, max_length=64)
    """Devices found on the node, such as gpu, npu, or their PCI names."""


class StoreUsage(Resource):
    """How full the store is."""

    used_bytes: Bytes = 0
    """Bytes that its files take."""
    budget_bytes: Bytes = 0
    """Bytes that they may take; 0 means as many as the disk has."""
    free_bytes: Bytes = 0
    """Bytes that are free on its disk."""
    summary: str = Field(default="", max_length=64)
    """Used of budget, for people, such as 1.2 of 8 GiB."""


class HeldModel(Resource):
    """How far one version is on this node."""

    namespace: str = Field(min_length=1, max_length=63)
    """Namespace of the EdgeModel."""
    name: str = Field(min_length=1, max_length=63)
    """Name of the EdgeModel."""
    digest: DigestText
    """sha256 of the artifact's manifest."""
    state: State
    """Ready: whole, verified and ready to be mounted. Failed: tried again by itself, later; reason says why."""
    bytes: Bytes = 0
    """Bytes that have come."""
    total: Bytes = 0
    """Bytes that are to come."""
    kind: TransferKind = ""
    """How it came: whole, as a delta to what was there, or from an imported bundle."""
    saved_bytes: Bytes = 0
    """Bytes that did not have to come: shared with what was there, or spared by the delta."""
    fallback_reason: str = Field(default="", max_length=512)
    """Why a delta was offered and not used."""
    reason: str = Field(default="", max_length=128)
    """Why the state is as it is, in one word."""
    message: str = Field(default="", max_length=1024)
    """Why, for a person."""
    since: datetime | None = None
    """When it came into this state."""
    altered_at: datetime | None = None
    """When its files were last found altered, by the API server's clock. Stays when they are whole again: pods made before
    it read the old ones, and are evicted."""


class EdgeNodeStatus(Resource):
    """What the node holds and can do. Written by its agent."""

    agent_version: str = Field(default="", max_length=64)
    """Version of the agent."""
    sealing_key: str = Field(default="", max_length=128)
    """The agent's X25519 public key, base64: what the operator seals pull secrets to."""
    capabilities: Capabilities = Field(default_factory=Capabilities)
    """What the node can run."""
    store: StoreUsage = Field(default_factory=StoreUsage)
    """How full the store is."""
    models_ready: str = Field(default="", max_length=16)
    """Models that are ready of those wanted, for people, such as 3/4."""
    models: list[HeldModel] = Field(default_factory=list, max_length=512)
    """How far each version is."""
    conditions: list[Condition] = Field(default_factory=list, max_length=8)
    """Ready: the agent serves mounts. DiskPressure: models do not fit on the disk or into the budget."""


class EdgeNode(Resource):
    """A node of the cluster as a place where models lie: made by the node's agent, owned by the Node of the same name."""

    api_version: str = API_VERSION
    kind: Literal["EdgeNode"] = "EdgeNode"
    metadata: OwnerMetadata
    spec: EdgeNodeSpec = Field(default_factory=EdgeNodeSpec)
    """What the node is to hold."""
    status: EdgeNodeStatus = Field(default_factory=EdgeNodeStatus)
    """What it holds and can do."""


def models_ready(models: Iterable[HeldModel]) -> str:
    """Return ``status.modelsReady``: ``3/4``."""
    states = [model.state for model in models]
    return f"{states.count('Ready')}/{len(states)}"


def store_summary(used: int, budget: int) -> str:
    """Return ``status.store.summary``: ``1.2 of 8 GiB``; ``1.2 GiB`` without a budget (0)."""
    size, unit = max(used, budget), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size // 1024, unit + 1
    scale = 1024**unit
    of = f" of {_short(budget / scale)}" if budget else ""
    return f"{_short(used / scale)}{of} {_UNITS[unit]}"


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def _short(amount: float) -> str:
    return f"{amount:.1f}".removesuffix(".0")
