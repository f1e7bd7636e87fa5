"""What the rollout's machine is told: what is wanted, and what was seen of each version. Values only."""

from dataclasses import dataclass
from typing import Literal

from edgemodel.api.conditions import Reason
from edgemodel.api.v1alpha1 import Slot
from edgemodel.rollout.gate import Verdict

Strategy = Literal["Surge", "StopFirst", "Canary"]
OnNoData = Literal["Hold", "Proceed", "RollBack"]
Golden = Literal["Required", "IfPresent", "Ignore"]

ALL_AT_ONCE = ((100, 0.0),)
SURGE_NEEDS_ROOM = (
    "room for both versions is needed; with spec.rollout.strategy StopFirst room for one is enough"
)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a version is not started, though it could be."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What spec, annotations and trust ask for."""

    target: Slot | None
    """The version that spec.image stands for, if it is known and passed; its ``since`` and ``tries`` are ignored."""
    replicas: int
    generation: int
    retry: str = ""
    strategy: Strategy = "Surge"
    steps: tuple[tuple[int, float], ...] = ALL_AT_ONCE
    """Percent of requests and least duration in seconds of each step; the last one is of 100 %."""
    on_no_data: OnNoData = "Proceed"
    """What follows when a step has lasted its time and the gate knows nothing."""
    golden: Golden = "Ignore"
    """Required: never go on without golden samples that passed, whatever ``on_no_data`` says."""
    progress_deadline: float = 600.0
    """Seconds that a candidate's pods may be not ready, from its delivery, or start where pods fetch for themselves; 0 means
    for ever."""
    paused: bool = False
    hold: Hold | None = None
    """Why no candidate is started beside, or instead of, an active version now: a window, memory, a gateway that is missing.
    One that runs is not touched by it, and a first version or a rollback does not wait for it."""
    promote: str = ""
    """Digest, or 12 hex digits of it or more, of a candidate that takes over as soon as its pods are ready."""
    rollback: str = ""
    """Digest, or 12 hex digits of it or more, of a version that is not to serve."""
    refused: frozenset[str] = frozenset()
    """Digests that do not pass today's policies."""
    delivered: frozenset[str] | None = None
    """Digests that the nodes have; None where pods fetch for themselves, so that there is nothing to wait for."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pod does not answer; ``fatal`` when waiting longer will not mend it."""

    reason: Reason
    message: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one version."""

    deployed: bool = False
    """Its Deployment exists."""
    replicas: int = 0
    """How many pods its Deployment asks for."""
    pods: int = 0
    """Pods that hold memory, those that are going included."""
    ready: int = 0
    """Pods that answer and are not going."""
    failure: Failure | None = None
    """The worst thing that any of its pods reports."""
    golden: Verdict = "Pass"
    """What golden samples say of all ready pods; Pass where they are to be ignored."""
    gate: Verdict = "Inconclusive"
    """What the gate says of the present step."""
    suspect: bool = False
    """The gate is not sure, and not for want of requests: what it sees is not good."""
    why: str = ""
    """What speaks against it, for a person."""
    watched: float = 0.0
    """Seconds for which the present step has been watched without a break: a restarted operator begins anew."""


NOT_SEEN = Seen()


def names(order: str, digest: str) -> bool:
    """Tell whether an order's value names a digest: the whole of it, or 12 hex digits or more from its beginning."""
    given = order.strip().lower().removeprefix("sha256:")
    return len(given) >= 12 and digest.removeprefix("sha256:").startswith(given)
