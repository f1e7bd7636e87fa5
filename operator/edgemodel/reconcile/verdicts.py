"""What evidence says of the candidate in its present step, and how much of that status tells.

Counters of a busy model change every second; status is written anew only when a result changes or its samples have doubled.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from edgemodel.api.meta import seconds
from edgemodel.api.rollout import Gate, GateState, RolloutStatus
from edgemodel.reconcile.child import digest_label
from edgemodel.reconcile.observed import Observed
from edgemodel.reconcile.pods import PodFacts, clean
from edgemodel.rollout.gate import GateLimits, GateResult, Verdict, judge, judge_golden, overall

_WORD, _STORY = 256, 1024


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All that is known of a candidate, judged."""

    golden: Verdict = "Inconclusive"
    gate: Verdict = "Inconclusive"
    suspect: bool = False
    """The gate is not sure, and not for want of requests."""
    why: str = ""
    """What failed, or what is not known yet."""
    watched: float = 0.0
    """Seconds for which the step has been watched by this process."""
    results: tuple[GateResult, ...] = ()


def limits(gate: Gate, steps: int) -> GateLimits:
    """Return what the gate allows, as the gate takes it."""
    return GateLimits(
        min_requests=gate.min_requests,
        max_error_ratio=gate.max_error_ratio,
        max_latency_p99=seconds(gate.max_latency_p99) if gate.max_latency_p99 is not None else None,
        max_latency_increase=gate.max_latency_increase,
        min_agreement=gate.min_agreement,
        golden=gate.golden_samples,
        steps=steps,
    )


def verdicts(observed: Observed, pods: Iterable[PodFacts], steps: int, now: datetime) -> Verdicts:
    """Judge the candidate that status remembers; ``steps`` is how many there are."""
    status, evidence = observed.model.status, observed.evidence
    candidate, rollout = status.slots.candidate, status.rollout
    if candidate is None:
        return Verdicts()
    gate = limits(observed.model.spec.rollout.gate, steps)
    label = digest_label(candidate.digest)
    ready = [pod.name for pod in pods if pod.digest == label and pod.ready]
    known = evidence if evidence is not None and evidence.digest == candidate.digest else None
    golden = judge_golden(gate, known.golden if known is not None else (), ready)
    judged: tuple[GateResult, ...] = ()
    if known is not None and rollout is not None and rollout.step > 0:
        active = known.active if status.slots.active is not None else None
        judged = judge(gate, known.candidate, active, known.shadowed)
    results = (*([golden] if golden is not None and ready else []), *judged)
    watched = 0.0
    if known is not None:
        watched = max(0.0, (now - known.since).total_seconds()) if known.since is not None else float("inf")
    return Verdicts(
        golden=golden.result if golden is not None else "Pass",
        gate=overall(judged) if judged else "Inconclusive",
        suspect=any(one.suspect for one in judged),
        why=_why(results),
        watched=watched,
        results=results,
    )


def told(
    rollout: RolloutStatus, before: RolloutStatus | None, results: Iterable[GateResult]
) -> RolloutStatus:
    """Return the rollout as status tells it, with what the gate says of the step."""
    if before is None or (before.step, before.step_since) != (rollout.step, rollout.step_since):
        return rollout  # what was judged was of another step
    found = [
        GateState(
            name=result.name,
            result=result.result,
            value=clean(result.value, _WORD),
            limit=clean(result.limit, _WORD),
            samples=result.samples,
            message=clean(result.message, _STORY),
        )
        for result in results
    ]
    if [(one.name, one.result) for one in found] == [(one.name, one.result) for one in before.gate] and all(
        new.samples < 2 * max(1, old.samples) for new, old in zip(found, before.gate, strict=True)
    ):
        found = before.gate
    return rollout if found == rollout.gate else rollout.model_copy(update={"gate": found})


def summary(gate: Iterable[GateState]) -> str:
    """Return what the gate says in one line."""
    return "; ".join(
        f"{one.name} {one.result.lower()}"
        + (f" ({one.value}{', ' if one.limit else ''}{one.limit})" if one.value else "")
        for one in gate
    )


def _why(results: Iterable[GateResult]) -> str:
    """Return what decides against a candidate, the failures first, without what changes with each request."""
    found = sorted((one for one in results if one.result != "Pass"), key=lambda one: one.result != "Fail")
    failed = [one for one in found if one.result == "Fail"]
    return "; ".join(_told(one) for one in failed or found)[:_STORY]


def _told(one: GateResult) -> str:
    of = f" of {one.samples} requests" if one.name.startswith(("errors", "latency", "shadow")) else ""
    expected = f", expected {one.limit}" if one.limit else ""
    why = f" ({one.message})" if one.message else ""
    return f"{one.name}: {one.value or 'nothing'}{of}{expected}{why}"
