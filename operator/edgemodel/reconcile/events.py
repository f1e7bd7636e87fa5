"""Events: what happened between the old status and the new one, told once.

They follow from the two statuses alone, so that a pass which changes nothing tells nothing, and a restarted operator does
not tell again. The worker posts them only after the new status was written.
"""

from collections.abc import Iterator

from edgemodel.api.conditions import ConditionType, Reason
from edgemodel.api.meta import Condition
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import EdgeModelStatus, RolledBack
from edgemodel.reconcile.decision import Event
from edgemodel.reconcile.pods import TRUST_REASONS
from edgemodel.reconcile.verdicts import summary
from edgemodel.reconcile.view import capital, named
from edgemodel.rollout.gate import GateResult, Verdict, overall


def transitions(old: EdgeModelStatus, new: EdgeModelStatus) -> tuple[Event, ...]:
    """Return the Events of one change of status, in the order of the model's way: resolved, …, loaded, promoted."""
    return (
        *_of_artifact(old, new),
        *_of_start(old, new),
        *_of_delivery(old, new),
        *_of_nodes(old, new),
        *_of_loading(old, new),
        *_of_gate(old, new),
        *_of_weight(old, new),
        *_of_end(old, new),
    )


def _of_artifact(old: EdgeModelStatus, new: EdgeModelStatus) -> Iterator[Event]:
    moved = new.tag is not None and (old.tag is None or old.tag.digest != new.tag.digest)
    if moved and new.tag is not None:
        yield Event("Normal", "ArtifactResolved", f"{new.tag.ref} stands for {new.tag.digest}.")
    before, after = _pair(old, new, ConditionType.ARTIFACT_VERIFIED)
    if after is None:
        return
    if after.status == "True" and (moved or before is None or before.status != "True"):
        yield Event("Normal", "ArtifactVerified", after.message)
    if after.status == "False" and after.reason in TRUST_REASONS and (moved or _turned(before, after)):
        downgrade = after.reason == Reason.DOWNGRADE_REFUSED
        name = "DowngradeRefused" if downgrade else "SignatureRejected"
        yield Event("Warning", name, f"{after.reason}: {after.message}")


def _of_start(old: EdgeModelStatus, new: EdgeModelStatus) -> Iterator[Event]:
    candidate, active, was = new.slots.candidate, new.slots.active, old.slots.candidate
    if candidate is not None and (was is None or was.digest != candidate.digest):
        beside = f"; {named(active)} is the active one" if active is not None else ""
        yield Event("Normal", "RolloutStarted", f"{capital(named(candidate))} is being started{beside}.")
    before, after = _pair(old, new, ConditionType.PROGRESSING)
    if after is not None and after.reason == Reason.PAUSED and _turned(before, after):
        yield Event("Normal", "UpdatePaused", after.message)


def _of_delivery(old: EdgeModelStatus, new: EdgeModelStatus) -> Iterator[Event]:
    before, after = _pair(old, new, ConditionType.ARTIFACT_DELIVERED)
    if after is not None and after.status == "True" and (before is None or before.status != "True"):
        by_delta = after.reason == Reason.DELTA_APPLIED
        yield Event("Normal", "DeltaApplied" if by_delta else "ArtifactPulled", after.message)
    fallback = new.transfer.fallback_reason if new.transfer is not None else ""
    if fallback and (old.transfer is None or old.transfer.fallback_reason != fallback):
        yield Event("Normal", "DeltaFellBack", f"A node did not use the delta it was offered: {fallback}")


def _of_nodes(old: EdgeModelStatus, new: EdgeModelStatus) -> Iterator[Event]:
    before = {state.node: state for state in old.node_statuses}
    for state in sorted(new.node_statuses, key=lambda state: state.node):
        was = before.get(state.node)
        if was is None or (was.state == "Offline") == (state.state == "Offline"):
            continue
        if state.state == "Offline":
            seen = f"; last heard of at {state.last_seen:%Y-%m-%dT%H:%M:%SZ}" if state.last_seen else ""
            yield Event("Warning", "NodeOffline", f"Node {state.node} is not heard of{seen}.")
        elif was.last_seen is not None:  # or its agent began just now
            yield Event("Normal", "NodeRejoined", f"Node {state.node} is back and is brought up to date.")
    degraded, now = _pair(old, new, ConditionType.DEGRADED)
    if now is not None and now.reason == Reason.INTEGRITY_FAILED and _turned(degraded, now):
        yield Event("Warning", "TamperDetected", now.message)


def _of_loading(old: EdgeModelStatus, new: EdgeModelStatus) -> Iterator[Event]:
    before, after = _pair(old, new, ConditionType.MODEL_LOADED)
    if after is None or not _turned(before, after):
        return
    if after.status == "True":
        yield Event("Normal", "ModelLoaded", after.message)
    if after.status == "False":
        yield Event("Warning", "ModelLoadFailed", f"{after.reason}: {after.message}")


def _of_gate(old: EdgeModelStatus, new: EdgeModelStatus) -> Iterator[Event]:
    candidate, at, was = new.slots.candidate, new.rollout, old.rollout
    if candidate is not None and at is not None and at.step > 0 and _verdict(at) == "Pass":
        same_step = was is not None and (was.step, was.step_since) == (at.step, at.step_since)
        if not (same_step and was is not None and _verdict(was) == "Pass"):
            yield Event(
                "Normal", "GatePassed", f"{capital(named(candidate))}, {_step(at)}: {summary(at.gate)}."
            )
    before, after = _pair(old, new, ConditionType.PROGRESSING)
    if after is not None and after.reason == Reason.GATE_INCONCLUSIVE and _turned(before, after):
        yield Event("Normal", "GateInconclusive", after.message)
    back = new.rolled_back
    failed = (Reason.GATE_FAILED, Reason.GOLDEN_SAMPLES_FAILED)
    if back is not None and back.reason in failed and _is_new(old, back):
        yield Event("Warning", "GateFailed", f"{back.digest[:19]}: {back.message}")


def _of_weight(old: EdgeModelStatus, new: EdgeModelStatus) -> Iterator[Event]:
    candidate, was = new.slots.candidate, old.slots.candidate
    if candidate is None or new.rollout is None:
        return
    same = was is not None and was.digest == candidate.digest and old.rollout is not None
    before = old.rollout.weight if same and old.rollout is not None else 0
    if new.rollout.weight != before:
        yield Event(
            "Normal",
            "WeightSet",
            f"{capital(named(candidate))} gets {new.rollout.weight} % of the requests, {_step(new.rollout)}.",
        )


def _of_end(old: EdgeModelStatus, new: EdgeModelStatus) -> Iterator[Event]:
    served, active = old.slots.active, new.slots.active
    if active is not None and (served is None or served.digest != active.digest):
        instead = f" instead of {named(served)}" if served is not None else ""
        yield Event("Normal", "Promoted", f"{capital(named(active))} serves{instead}.")
    back = new.rolled_back
    if back is not None and _is_new(old, back):
        yield Event(
            "Warning", "RolledBack", f"{back.digest[:19]} was taken back: {back.reason}: {back.message}"
        )


def _is_new(old: EdgeModelStatus, back: RolledBack) -> bool:
    return old.rolled_back is None or old.rolled_back.at != back.at


def _step(at: RolloutStatus) -> str:
    return f"step {at.step} of {at.steps}"


def _verdict(at: RolloutStatus) -> Verdict:
    return overall(GateResult(one.name, one.result) for one in at.gate)


def _turned(before: Condition | None, after: Condition) -> bool:
    """Say whether a condition has another status or reason than before."""
    return before is None or (before.status, before.reason) != (after.status, after.reason)


def _pair(
    old: EdgeModelStatus, new: EdgeModelStatus, kind: ConditionType
) -> tuple[Condition | None, Condition | None]:
    def find(status: EdgeModelStatus) -> Condition | None:
        return next((condition for condition in status.conditions if condition.type == kind), None)

    return find(old), find(new)
