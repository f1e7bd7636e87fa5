"""How a new version takes over, what it must show for it, how far it has come: ``spec.rollout`` and ``status.rollout``."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from edgemodel.api.edge_node import Window
from edgemodel.api.meta import Duration, Resource


class RolloutWindow(Resource):
    """When what may happen."""

    download: Window | None = None
    """When nodes may download a new version; at any time when empty. The version that serves is never held back: a new node
    gets it at once."""
    activate: Window | None = None
    """When a new version may begin to take over; at any time when empty. What has begun goes on after the window closes, and
    neither a first version nor a rollback waits for it."""


class RolloutStep(Resource):
    """One step of a canary."""

    weight: int = Field(ge=0, le=100)
    """Percent of requests that the new version gets."""
    pause: Duration = "1m"
    """How long the step lasts at least; what the gate says then decides whether the next one begins."""


class Gate(Resource):
    """What a new version must show before it replaces the old one."""

    min_requests: int = Field(default=50, ge=1, le=1_000_000)
    """Requests that a step needs before they count as evidence in its favour."""
    max_error_ratio: float = Field(default=0.01, ge=0, le=1)
    """Part of the requests that may fail with a server error, such as 0.01."""
    max_latency_p99: Duration | None = None
    """Time within which 99 of 100 requests are answered; no such limit when empty."""
    max_latency_increase: float = Field(default=0.5, ge=0, le=100)
    """Part by which the new version's 99th percentile of latency may exceed the old one's, such as 0.5 for half as long
    again."""
    min_agreement: float | None = Field(default=None, ge=0, le=1)
    """Part of the answers to copies of requests (spec.traffic.shadow) that must agree with the old version's, such as 0.99;
    when empty, what was found is only told."""
    golden_samples: Literal["Required", "IfPresent", "Ignore"] = "IfPresent"
    """Whether the samples that the publisher signed must give the answers he signed, in each pod, before it gets requests.
    Required: an artifact without samples is taken back. IfPresent: those that are there must pass."""
    window: Duration = "30s"
    """How long the new version must have all requests, beside the old one that could take them back, before it stays."""
    on_no_data: Literal["Hold", "Proceed", "RollBack"] | None = None
    """What follows when a step has lasted its time and there is too little evidence. Hold: wait for more. Proceed: go on as
    if it had passed. RollBack: take the version back. When empty, Hold for Canary and Proceed for the others."""


class RolloutSpec(Resource):
    """How a new version takes over, and when it is taken back."""

    strategy: Literal["Surge", "StopFirst", "Canary"] = "Surge"
    """Surge: the new version starts beside the old one and takes over when it is ready; needs memory for both, no gap
    in service. StopFirst: the old version stops before the new one starts; needs memory for one, service pauses. Canary:
    like Surge, but the new version gets a growing part of the requests; needs the gateway."""
    steps: list[RolloutStep] = Field(default_factory=list, max_length=20)
    """Steps of a Canary before it gets all requests; 10 % and 50 % for a minute each when empty."""
    gate: Gate = Field(default_factory=Gate)
    """What a new version must show before it replaces the old one."""
    progress_deadline: Duration = "10m"
    """A new version whose pods are not ready for this long, once it is delivered, is taken back."""
    window: RolloutWindow = Field(default_factory=RolloutWindow)
    """When what may happen."""
    paused: bool = False
    """Hold the change of version: new versions are resolved and verified, none is started or promoted."""


class GateState(Resource):
    """What one test of the gate says."""

    name: str = Field(max_length=63)
    """The test."""
    result: Literal["Pass", "Fail", "Inconclusive"]
    """Pass: good. Fail: bad, beyond doubt. Inconclusive: not known yet."""
    value: str = Field(default="", max_length=256)
    """What was found."""
    limit: str = Field(default="", max_length=256)
    """What is allowed."""
    samples: int = 0
    """How much it was found from; written anew when the result changes and each time it has doubled."""
    message: str = Field(default="", max_length=1024)
    """Why, for a person."""


class RolloutStatus(Resource):
    """How far the candidate has come."""

    step: int = 0
    """The step it is at, from 1; 0 until its pods were ready and their golden samples passed."""
    steps: int = 1
    """How many steps there are."""
    weight: int = 0
    """Percent of requests that it gets now."""
    started_at: datetime | None = None
    """When it was started."""
    step_since: datetime | None = None
    """When the step began; none until its pods were ready."""
    not_ready_since: datetime | None = None
    """Since when some of its pods are not ready though all of them were; none while they are."""
    not_ready_seconds: int = 0
    """How long in this step, until then, some of its pods were not ready: the step lasts that much longer."""
    gate: list[GateState] = Field(default_factory=list, max_length=16)
    """What the gate says of it in this step."""
