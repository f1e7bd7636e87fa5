"""The kind ``ModelTrustPolicy``: whose signature a model needs. The types are the API, as in ``api.v1alpha1``."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from edgemodel.api.meta import API_VERSION, Condition, DigestText, Duration, OwnerMetadata, Resource


class SecretKeyRef(Resource):
    """Names one key of a Secret."""

    namespace: str = Field(min_length=1, max_length=63)
    """Namespace of the Secret."""
    name: str = Field(min_length=1, max_length=253)
    """Name of the Secret."""
    key: str = Field(default="cosign.pub", min_length=1, max_length=253)
    """Key whose value is the PEM."""


class Authority(Resource):
    """One signing key and when it counts."""

    name: str = Field(min_length=1, max_length=63)
    """Name that appears in status and Events."""
    public_key: str | None = Field(default=None, max_length=8192)
    """PEM of an ECDSA (P-256, P-384, P-521) or RSA public key."""
    public_key_secret: SecretKeyRef | None = None
    """Secret that holds the PEM instead."""
    not_before: datetime | None = None
    """Signatures are not accepted before this time."""
    not_after: datetime | None = None
    """Signatures are not accepted after this time."""
    revoked: bool = False
    """The key no longer counts; artifacts that only it signed are refused with KeyRevoked."""


class LabelRequirement(Resource):
    """One requirement of a label selector."""

    key: str
    """Label key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the values relate."""
    values: list[str] = Field(default_factory=list)
    """Values for In and NotIn."""


class LabelSelector(Resource):
    """Selects by labels; empty selects everything."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    """Labels that must be present with these values."""
    match_expressions: list[LabelRequirement] = Field(default_factory=list)
    """Requirements that must all hold."""


class PolicyMatch(Resource):
    """Which models a policy governs."""

    images: list[str] = Field(min_length=1, max_length=64)
    """Globs over registry/repository: * stays within one path component, ** crosses them."""
    namespace_selector: LabelSelector = Field(default_factory=LabelSelector)
    """Namespaces whose EdgeModels are governed; all when empty."""


class ModelTrustPolicySpec(Resource):
    """Who may sign what."""

    match: PolicyMatch
    """Which models this policy governs. Every policy that matches must pass; when none matches, the model is refused."""
    mode: Literal["Enforce", "Warn"] = "Enforce"
    """Enforce refuses what does not pass. Warn lets it through and says so in status and Events."""
    authorities: list[Authority] = Field(min_length=1, max_length=32)
    """Keys that count."""
    threshold: int = Field(default=1, ge=1, le=32)
    """How many distinct keys must have signed."""
    formats: list[Literal["Bundle", "Legacy", "OpenSSF"]] = Field(
        default=["Bundle", "Legacy"], min_length=1, max_length=3
    )
    """Signature formats that count. Bundle: what cosign 3 writes. Legacy: cosign's older .sig tag. OpenSSF: a model.sig
    file, which covers the files but neither name, version nor sequence."""
    require_sequence: bool = False
    """Refuse an artifact whose publisher signed no sequence number."""
    allow_downgrade: bool = False
    """Let an artifact in whose sequence is lower than the highest that was ever active."""
    max_age: Duration | None = None
    """Refuse an artifact that was created longer ago than this."""
    revoked_digests: list[DigestText] = Field(default_factory=list, max_length=1024)
    """Artifacts that are refused whoever signed them."""


class ModelTrustPolicyStatus(Resource):
    """What is."""

    observed_generation: int = 0
    """The metadata.generation that this status speaks of."""
    models: int = 0
    """Number of EdgeModels this policy governs."""
    conditions: list[Condition] = Field(default_factory=list, max_length=8)
    """Valid says whether every key can be read."""


class ModelTrustPolicy(Resource):
    """Says whose signature a model needs before it may run on this cluster."""

    api_version: str = API_VERSION
    kind: Literal["ModelTrustPolicy"] = "ModelTrustPolicy"
    metadata: OwnerMetadata
    spec: ModelTrustPolicySpec
    """Who may sign what."""
    status: ModelTrustPolicyStatus = Field(default_factory=ModelTrustPolicyStatus)
    """What is."""
