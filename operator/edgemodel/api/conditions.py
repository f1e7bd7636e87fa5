"""Condition types and reasons: the words the operator uses to say how a model is doing.

A reason is one CamelCase word, documented here once and used by errors, conditions, Events and metrics alike.
``merge`` is the only way a condition changes: ``lastTransitionTime`` moves with ``status`` and with nothing else.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from edgemodel.api.meta import Condition, ConditionStatus


class ConditionType(StrEnum):
    """What a condition speaks of; ``RolledBack``, ``Degraded`` and ``Stalled`` are bad when True."""

    READY = "Ready"
    """Some version answers requests."""
    ARTIFACT_VERIFIED = "ArtifactVerified"
    """The artifact that spec.image names now has passed every matching ModelTrustPolicy."""
    ARTIFACT_DELIVERED = "ArtifactDelivered"
    """The newest verified artifact is, whole and verified again, where pods can read it."""
    MODEL_LOADED = "ModelLoaded"
    """The inference server has loaded the newest verified artifact."""
    PROGRESSING = "Progressing"
    """A change of version is under way."""
    ROLLED_BACK = "RolledBack"
    """The newest version was tried, failed and was taken back."""
    DEGRADED = "Degraded"
    """Serving, with less than what was asked for."""
    STALLED = "Stalled"
    """Nothing will change until a person acts."""


class Reason(StrEnum):
    """Why a condition is as it is."""

    # Ready
    SERVING = "Serving"
    RECONCILING = "Reconciling"
    SUSPENDED = "Suspended"
    NO_READY_PODS = "NoReadyPods"
    # ArtifactVerified: False
    VERIFIED = "Verified"
    NO_MATCHING_POLICY = "NoMatchingPolicy"
    SIGNATURE_MISSING = "SignatureMissing"
    SIGNATURE_INVALID = "SignatureInvalid"
    KEY_UNKNOWN = "KeyUnknown"
    KEY_REVOKED = "KeyRevoked"
    DOWNGRADE_REFUSED = "DowngradeRefused"
    EXPIRED = "Expired"
    DIGEST_MISMATCH = "DigestMismatch"
    WRONG_MODEL = "WrongModel"
    MALFORMED_ARTIFACT = "MalformedArtifact"
    # ArtifactVerified: Unknown
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    NOT_FOUND = "NotFound"
    # ArtifactDelivered
    PULLED = "Pulled"
    DELTA_APPLIED = "DeltaApplied"
    IMPORTED = "Imported"
    DOWNLOADING = "Downloading"
    RATE_LIMITED = "RateLimited"
    WAITING_FOR_WINDOW = "WaitingForWindow"
    TRANSFER_FAILED = "TransferFailed"
    DISK_FULL = "DiskFull"
    NODES_OFFLINE = "NodesOffline"
    NO_AGENT = "NoAgent"
    # ModelLoaded
    LOADED = "Loaded"
    STARTING = "Starting"
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    UNSUPPORTED_OPSET = "UnsupportedOpset"
    MISSING_EXTERNAL_DATA = "MissingExternalData"
    AMBIGUOUS_MODEL_FILE = "AmbiguousModelFile"
    MODEL_FILE_NOT_FOUND = "ModelFileNotFound"
    SERVER_CRASHED = "ServerCrashed"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    # Progressing
    PROMOTING = "Promoting"
    REPLACING = "Replacing"
    COMPLETE = "Complete"
    PAUSED = "Paused"
    BLOCKED_BY_FAILED_LOAD = "BlockedByFailedLoad"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    CANARY = "Canary"
    GATE_INCONCLUSIVE = "GateInconclusive"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    # RolledBack
    LOAD_FAILED = "LoadFailed"
    GATE_FAILED = "GateFailed"
    GOLDEN_SAMPLES_FAILED = "GoldenSamplesFailed"
    MANUAL = "Manual"
    # Degraded
    STALE = "Stale"
    REPLICAS_MISSING = "ReplicasMissing"
    SOME_NODES_OFFLINE = "SomeNodesOffline"
    INTEGRITY_FAILED = "IntegrityFailed"
    TAMPER_DETECTED = "TamperDetected"
    # Stalled
    INVALID_SPEC = "InvalidSpec"
    POLICY_REFUSED = "PolicyRefused"
    NAME_CONFLICT = "NameConflict"
    GATEWAY_MISSING = "GatewayMissing"
    ACCESS_CLOSED = "AccessClosed"
    # any type
    NONE = "None"


Statement = tuple[str, ConditionStatus, Reason, str]
"""What a condition says, before it is held against what it said: type, status, reason, message."""


def merge(
    old: Iterable[Condition],
    new: Iterable[Statement],
    *,
    generation: int | None,
    now: datetime,
) -> tuple[Condition, ...]:
    """Return the full list of conditions, in the order of ``new``.

    Args:
        old: the conditions that status holds now.
        new: type, status, reason and message, one per type; a type that is not named is dropped.
        generation: ``metadata.generation`` that was acted on; None when it is not known.
        now: becomes ``lastTransitionTime`` of each condition whose status differs from its old one.
    """
    before = {condition.type: condition for condition in old}
    merged = []
    for kind, status, reason, message in new:
        previous = before.get(kind)
        same = previous is not None and previous.status == status
        merged.append(
            Condition(
                type=str(kind),
                status=status,
                reason=str(reason),
                message=message,
                observed_generation=generation,
                last_transition_time=previous.last_transition_time if same and previous else now,
            )
        )
    return tuple(merged)
