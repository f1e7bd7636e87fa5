"""Says how a change of version goes: the condition Progressing, and the sentences that other conditions borrow from it."""

from edgemodel.api.conditions import ConditionType, Reason
from edgemodel.api.v1alpha1 import RolledBack
from edgemodel.reconcile.arrival import brought
from edgemodel.reconcile.observed import Unresolved
from edgemodel.reconcile.view import Told, VersionView, View, capital, reason_of, sentence
from edgemodel.rollout.facts import SURGE_NEEDS_ROOM

JUDGED = frozenset(
    {Reason.GATE_FAILED, Reason.GATE_INCONCLUSIVE, Reason.GOLDEN_SAMPLES_FAILED, Reason.MANUAL}
)
"""Why a version is taken back that did load."""


def progressing(view: View) -> Told:
    """Return what Progressing says."""
    active, candidate, taken_back = view.active, view.candidate, view.taken_back
    if candidate is not None:
        return _progress_of(view, candidate, active)
    if view.step.held:
        return "False", view.step.held.reason, held(view)
    if taken_back is not None:
        return _after_rollback(view, taken_back)
    if active is not None and view.step.draining:
        return "True", Reason.PROMOTING, f"Requests go to {active.name}; the one before it is being drained."
    before = remembered(view, ConditionType.PROGRESSING)
    if before is not None and before[0] == "False":
        return before
    if view.refusal is not None:
        return "False", Reason.POLICY_REFUSED, f"What spec.image stands for is refused. {view.what_serves}"
    if active is not None:
        return "False", Reason.COMPLETE, f"{capital(active.name)} is the active one."
    if isinstance(view.target, Unresolved):
        return "False", view.target.reason, "spec.image has not been resolved, so nothing can be started."
    return "False", Reason.RECONCILING, "No version has been started."


def remembered(view: View, kind: ConditionType) -> Told | None:
    """Return what a condition said before, if there is nothing to say yet that is better founded."""
    before = view.before(kind)
    return (before.status, reason_of(before.reason), before.message) if before is not None else None


def retry(taken_back: RolledBack) -> str:
    """Say how a version that was taken back is tried again."""
    how = "To try it again change the spec or set the annotation edgemodel.io/retry to a new value"
    if taken_back.reason == Reason.MANUAL:
        return f"{how}, once no annotation edgemodel.io/rollback names it."
    return f"{how}."


def outlook(view: View) -> str:
    """Say what becomes of a version that does not do."""
    if view.candidate is not None and view.active is None:
        return (
            "There is no earlier version to go back to; it is tried again until spec.image gives another one."
        )
    return view.what_serves


def held(view: View) -> str:
    """Say what holds a new version, and what goes on meanwhile."""
    hold = view.step.held
    assert hold is not None
    arrives = f" {brought(view)[2]}" if view.step.waiting else ""
    if hold.reason is not Reason.PAUSED:
        return f"{hold.message}{arrives} {view.what_serves}"
    until = "is not started until it is false" if view.step.waiting else "waits until it is false"
    return f"spec.rollout.paused is true: the new version {until}.{arrives} {view.what_serves}"


def kept_closed(view: View, version: VersionView) -> tuple[Reason, str]:
    """Say why a version whose pods are ready gets no requests: its golden samples."""
    if view.judged.golden == "Fail":
        told = f"{capital(version.name)} does not pass its golden samples and gets no requests: {sentence(view.judged.why)}"
        return Reason.GOLDEN_SAMPLES_FAILED, f"{told} {outlook(view)}"
    if view.step.inconclusive:
        told = (
            f"{capital(version.name)} is loaded and gets no requests: its pods do not tell how they do on golden samples, "
            "which spec.rollout.gate requires."
        )
        return Reason.GATE_INCONCLUSIVE, told
    told = f"{capital(version.name)} is loaded, and gets requests once its pods have told how they do on golden samples."
    return Reason.STARTING, told


def _after_rollback(view: View, taken_back: RolledBack) -> Told:
    reason = reason_of(taken_back.reason)
    if reason not in JUDGED and reason is not Reason.PROGRESS_DEADLINE_EXCEEDED:
        reason = Reason.BLOCKED_BY_FAILED_LOAD
    return "False", reason, f"{sentence(taken_back.message)} {view.what_serves} {retry(taken_back)}"


def _progress_of(view: View, candidate: VersionView, active: VersionView | None) -> Told:
    failure = candidate.failure
    if view.step.waiting:
        return _progress_to_nodes(view, candidate)
    if active is None:
        return _progress_of_first(view, candidate)
    if view.spec.rollout.paused:
        message = (
            f"spec.rollout.paused is true: {candidate.name} is up and is not promoted until it is false."
        )
        return "False", Reason.PAUSED, f"{message}{_share(view)} {view.what_serves}"
    why = f" {sentence(failure.message)}" if failure else ""
    if view.step.inconclusive:
        return "False", Reason.GATE_INCONCLUSIVE, f"{_unknown(view, candidate)}{_share(view)}{why}"
    at = view.step.rollout
    if at is not None and at.step > 0:
        if view.spec.rollout.strategy == "Canary" and at.weight < 100:
            share = f"{candidate.name} gets {at.weight} % of the requests, {active.name} the others."
            return "True", Reason.CANARY, f"Step {at.step} of {at.steps}: {share}{why}"
        message = (
            f"{capital(candidate.name)} gets all requests and is watched; {active.name} could take them back."
        )
        if view.spec.rollout.strategy == "StopFirst":
            message = (
                f"{capital(candidate.name)} gets all requests and is watched; {active.name} has stopped."
            )
        return "True", Reason.PROMOTING, message + why
    if (
        failure is not None
        and failure.reason is Reason.UNSCHEDULABLE
        and view.spec.rollout.strategy != "StopFirst"
    ):
        why = f"{why} {view.spec.rollout.strategy}: {SURGE_NEEDS_ROOM}."
    return "True", Reason.REPLACING, f"{capital(candidate.name)} is starting to replace {active.name}.{why}"


def _progress_of_first(view: View, candidate: VersionView) -> Told:
    failure = candidate.failure
    if failure is not None and failure.fatal:
        return "False", Reason.BLOCKED_BY_FAILED_LOAD, f"{sentence(failure.message)} {outlook(view)}"
    if candidate.ready and view.step.closed:
        reason, message = kept_closed(view, candidate)
        return (
            ("True", Reason.PROMOTING, message) if reason is Reason.STARTING else ("False", reason, message)
        )
    if view.overdue:
        why = f" {sentence(failure.message)}" if failure else ""
        late = f"No pod of {candidate.name} got ready within {view.spec.rollout.progress_deadline}."
        return "False", Reason.PROGRESS_DEADLINE_EXCEEDED, f"{late}{why} {outlook(view)}"
    why = f": {sentence(failure.message)}" if failure else "."
    return "True", Reason.PROMOTING, f"The first version, {candidate.name}, is starting{why}"


def _progress_to_nodes(view: View, candidate: VersionView) -> Told:
    """Return how it goes with a candidate that no pod runs, because nodes do not have it yet or something holds it."""
    if view.step.held:
        return "False", view.step.held.reason, held(view)
    _, reason, message = brought(view)
    if reason is Reason.WAITING_FOR_WINDOW:
        return "False", reason, f"{message} {view.what_serves}"
    doing = Reason.REPLACING if view.active is not None else Reason.PROMOTING
    return (
        "True",
        doing,
        f"{capital(candidate.name)} is started once nodes have it. {message} {view.what_serves}",
    )


def _share(view: View) -> str:
    at = view.step.rollout
    return f" It gets {at.weight} % of the requests." if at is not None and at.step > 0 else ""


def _unknown(view: View, candidate: VersionView) -> str:
    """Say that the gate knows too little to let the candidate go on, and of what."""
    unknown = [one.name for one in view.judged.results if one.result == "Inconclusive"]
    of_what = ", ".join(unknown) if unknown else "nothing was read of its pods"
    return (
        f"{capital(candidate.name)} waits: too little is known to judge it ({of_what}). It goes on by itself when there is "
        "more; the annotations edgemodel.io/promote and edgemodel.io/rollback decide at once."
    )
