"""Says how a model is doing: the only place that computes conditions.

Each function below speaks of one type. The messages are for a person at night: what happened, what still works, what to do.
They hold no counter that ticks and no time, so that a world at rest has a status at rest.

Rules: Ready only while a pod answers; the old version serving while the new one is blocked is Ready=True with
Progressing=False/BlockedByFailedLoad; trouble in reaching a registry makes ArtifactVerified Unknown and touches
nothing else.
"""

from edgemodel.api.conditions import ConditionType, Reason, Statement
from edgemodel.api.meta import ConditionStatus
from edgemodel.reconcile.arrival import NAMED, arrival, brought, offline_told
from edgemodel.reconcile.nodes import altered
from edgemodel.reconcile.observed import Unresolved
from edgemodel.reconcile.pods import (
    FILE_REASONS,
    LOAD_REASONS,
    PLACE_REASONS,
    TRUST_REASONS,
    Stage,
    clean,
)
from edgemodel.reconcile.service import url
from edgemodel.reconcile.view import Told, VersionView, View, capital, named, reason_of, sentence
from edgemodel.rollout.machine import SURGE_NEEDS_ROOM

_RETRY = "To try it again change the spec or set the annotation edgemodel.io/retry to a new value."


def statements(view: View) -> tuple[Statement, ...]:
    """Return one statement for each type, Ready first."""
    told: tuple[tuple[ConditionType, Told], ...] = (
        (ConditionType.READY, _ready(view)),
        (ConditionType.ARTIFACT_VERIFIED, _verified(view)),
        (ConditionType.ARTIFACT_DELIVERED, arrival(view)),
        (ConditionType.MODEL_LOADED, _loaded(view)),
        (ConditionType.PROGRESSING, _progressing(view)),
        (ConditionType.ROLLED_BACK, _rolled_back(view)),
        (ConditionType.DEGRADED, _degraded(view)),
        (ConditionType.STALLED, _stalled(view)),
    )
    return tuple((kind, status, reason, message) for kind, (status, reason, message) in told)


def _kept(view: View, kind: ConditionType) -> Told | None:
    """Return what a condition said before, if there is nothing to say yet that is better founded."""
    before = view.before(kind)
    return (before.status, reason_of(before.reason), before.message) if before is not None else None


def suspended(ready: int) -> Told:
    """Return what Ready says while spec.suspend is set."""
    message = "spec.suspend is true: nothing is reconciled, what runs goes on running."
    return ("True" if ready else "False"), Reason.SUSPENDED, message


def _ready(view: View) -> Told:
    serve = view.serve
    if serve is None:
        return _ready_without_version(view)
    if f"Service/{view.model.metadata.name}" in view.observed.conflicts:
        message = f"{url(view.model)} leads to a Service that belongs to somebody else, not to {serve.name}."
        return "False", Reason.NAME_CONFLICT, message
    if serve.ready:
        return "True", Reason.SERVING, f"{capital(serve.name)} answers at {url(view.model)}."
    if view.spec.replicas == 0:
        return "False", Reason.NO_READY_PODS, "spec.replicas is 0: nothing serves until it is raised."
    failure = serve.failure
    if failure is not None:
        return "False", failure.reason, f"No pod of {serve.name} answers: {sentence(failure.message)}"
    if view.active is not None and view.candidate is not None and view.spec.rollout.strategy == "StopFirst":
        message = (
            f"Strategy StopFirst: {view.active.name} stops before {view.candidate.name} starts; "
            "service pauses until it is ready."
        )
        return "False", Reason.NO_READY_PODS, message
    if view.step.waiting and view.active is None:
        if view.step.held:
            return "False", Reason.PAUSED, _held(view)
        _, reason, message = brought(view)
        return "False", reason, message
    if serve.reached(Stage.LOADING):
        return "False", Reason.STARTING, f"The inference server is loading {serve.name}."
    if serve.reached(Stage.DOWNLOADING):
        return "False", Reason.DOWNLOADING, f"{capital(serve.name)} is being pulled."
    if view.active is None:
        return "Unknown", Reason.RECONCILING, f"Pods of {serve.name} are being created."
    if view.active_refusal is not None:
        return (
            "False",
            view.active_refusal[0],
            f"No pod of {serve.name} runs, and none is started: {sentence(view.active_refusal[1])}",
        )
    return "False", Reason.NO_READY_PODS, f"No pod of {serve.name} answers; its pods are being created."


def _ready_without_version(view: View) -> Told:
    status, reason, message = _verified(view)
    if view.observed.conflicts:
        _, reason, message = _stalled(view)
        return "False", reason, message
    if status != "True":
        return ("Unknown" if reason is Reason.RECONCILING else "False"), reason, message
    if view.step.held:
        return "False", Reason.PAUSED, _held(view)
    return "Unknown", Reason.RECONCILING, "The first version has not been started yet."


def _verified(view: View) -> Told:
    target = view.target
    kept = _kept(view, ConditionType.ARTIFACT_VERIFIED)
    if kept is not None:
        return kept
    if isinstance(target, Unresolved):
        status: ConditionStatus = "False" if target.reason in TRUST_REASONS else "Unknown"
        return status, target.reason, f"{sentence(target.message)} {view.what_serves}"
    if target.refusal is not None:
        reason, message = target.refusal
        return "False", reason, f"{target.digest[:19]} is refused: {sentence(message)} {view.what_serves}"
    release = f"version {target.release.version}" if target.release.version else "the artifact"
    vouched = ", ".join(target.verified_by) or "nobody: the policies that match only warn"
    message = f"{capital(release)} ({target.digest[:19]}) is vouched for by {vouched}."
    if target.warnings:
        message += " Warnings: " + " ".join(sentence(warning) for warning in target.warnings)
    return "True", Reason.VERIFIED, message


def _loaded(view: View) -> Told:
    taken_back = view.taken_back
    if taken_back is not None:
        reason = reason_of(taken_back.reason)
        message = f"{sentence(taken_back.message)} {view.what_serves}"
        return ("False" if reason in LOAD_REASONS | PLACE_REASONS else "Unknown"), reason, message
    subject = view.candidate or view.active
    if subject is None:
        return "Unknown", Reason.RECONCILING, "No version has been started."
    failure = subject.failure
    told = failure is not None and failure.reason in (LOAD_REASONS | PLACE_REASONS)
    # One pod of several that crashes or finds no node is Degraded; a file that cannot be loaded is not loaded.
    if failure is not None and told and (not subject.ready or failure.reason in FILE_REASONS):
        return (
            "False",
            failure.reason,
            f"{capital(subject.name)}: {sentence(failure.message)} {_outlook(view)}",
        )
    if subject.ready:
        return "True", Reason.LOADED, f"{capital(subject.name)} is loaded."
    return "Unknown", Reason.STARTING, f"No pod of {subject.name} has loaded it yet."


def _outlook(view: View) -> str:
    if view.candidate is not None and view.active is None:
        return (
            "There is no earlier version to go back to; it is tried again until spec.image gives another one."
        )
    return view.what_serves


def _progressing(view: View) -> Told:
    active, candidate, taken_back = view.active, view.candidate, view.taken_back
    if candidate is not None:
        return _progress_of(view, candidate, active)
    if view.step.held:
        return "False", Reason.PAUSED, _held(view)
    if taken_back is not None:
        overdue = taken_back.reason == Reason.PROGRESS_DEADLINE_EXCEEDED
        reason = Reason.PROGRESS_DEADLINE_EXCEEDED if overdue else Reason.BLOCKED_BY_FAILED_LOAD
        return "False", reason, f"{sentence(taken_back.message)} {view.what_serves} {_RETRY}"
    if active is not None and view.step.draining:
        return "True", Reason.PROMOTING, f"Requests go to {active.name}; the one before it is being drained."
    kept = _kept(view, ConditionType.PROGRESSING)
    if kept is not None and kept[0] == "False":
        return kept
    if view.refusal is not None:
        return "False", Reason.POLICY_REFUSED, f"What spec.image stands for is refused. {view.what_serves}"
    if active is not None:
        return "False", Reason.COMPLETE, f"{capital(active.name)} is the active one."
    if isinstance(view.target, Unresolved):
        return "False", view.target.reason, "spec.image has not been resolved, so nothing can be started."
    return "False", Reason.RECONCILING, "No version has been started."


def _progress_of(view: View, candidate: VersionView, active: VersionView | None) -> Told:
    failure = candidate.failure
    if view.step.waiting:
        return _progress_to_nodes(view, candidate)
    if active is None:
        if failure is not None and failure.fatal:
            return "False", Reason.BLOCKED_BY_FAILED_LOAD, f"{sentence(failure.message)} {_outlook(view)}"
        if view.overdue:
            why = f" {sentence(failure.message)}" if failure else ""
            late = f"No pod of {candidate.name} got ready within {view.spec.rollout.progress_deadline}."
            return "False", Reason.PROGRESS_DEADLINE_EXCEEDED, f"{late}{why} {_outlook(view)}"
        why = f": {sentence(failure.message)}" if failure else "."
        return "True", Reason.PROMOTING, f"The first version, {candidate.name}, is starting{why}"
    if view.spec.rollout.paused:
        message = (
            f"spec.rollout.paused is true: {candidate.name} is up and is not promoted until it is false."
        )
        return "False", Reason.PAUSED, f"{message} {view.what_serves}"
    why = f" {sentence(failure.message)}" if failure else ""
    if (
        failure is not None
        and failure.reason is Reason.UNSCHEDULABLE
        and view.spec.rollout.strategy == "Surge"
    ):
        why = f"{why} {SURGE_NEEDS_ROOM}."
    return "True", Reason.REPLACING, f"{capital(candidate.name)} is starting to replace {active.name}.{why}"


def _progress_to_nodes(view: View, candidate: VersionView) -> Told:
    """Return how it goes with a candidate that no pod runs, because nodes do not have it yet or a pause holds it."""
    if view.step.held:
        return "False", Reason.PAUSED, _held(view)
    _, reason, message = brought(view)
    if reason is Reason.WAITING_FOR_WINDOW:
        return "False", reason, f"{message} {view.what_serves}"
    doing = Reason.REPLACING if view.active is not None else Reason.PROMOTING
    return (
        "True",
        doing,
        f"{capital(candidate.name)} is started once nodes have it. {message} {view.what_serves}",
    )


def _held(view: View) -> str:
    if view.step.waiting:
        _, _, message = brought(view)
        return f"spec.rollout.paused is true: the new version is not started until it is false. {message} {view.what_serves}"
    return f"spec.rollout.paused is true: the new version waits until it is false. {view.what_serves}"


def _rolled_back(view: View) -> Told:
    taken_back = view.taken_back
    if taken_back is None:
        return "False", Reason.NONE, "Nothing was taken back."
    reason = reason_of(taken_back.reason)
    message = (
        f"{taken_back.digest[:19]} was taken back: {sentence(taken_back.message)} {view.what_serves} {_RETRY}"
    )
    return "True", (Reason.LOAD_FAILED if reason in LOAD_REASONS else reason), message


def _degraded(view: View) -> Told:
    active = view.active
    if active is None:
        return "False", Reason.NONE, "Nothing serves with less than was asked for."
    kept = _kept(view, ConditionType.DEGRADED)
    if kept is not None and kept[1] in (Reason.POLICY_REFUSED, Reason.STALE):
        return kept
    changed = altered(view.nodes or (), active.slot.digest, active.pods)
    where = ", ".join(sorted(changed)[:NAMED])
    if view.active_refusal is not None:
        also = f" Its files on {where} were found changed, too." if changed else ""
        message = (
            f"Today's policies refuse {named(active.slot)}, the active one: {sentence(view.active_refusal[1])} "
            "Pods that run are left running, but none is started any more. Mend the policy, or publish a version "
            f"that passes.{also}"
        )
        return "True", Reason.POLICY_REFUSED, message
    if changed:
        why = clean(changed[min(changed)].message).rstrip(".")
        message = (
            f"Files of {active.name} on {where} were found to be other than what was verified{': ' if why else ''}{why}. "
            "Pods there are being moved, and the files come anew. If nobody did this by hand, look at the node's disk, and "
            "at who can write to it."
        )
        return "True", Reason.INTEGRITY_FAILED, message
    if not active.ready:
        return "False", Reason.NONE, "Nothing serves with less than was asked for."
    for judged in (view.observed.active, view.target):
        if (
            judged is not None
            and not isinstance(judged, Unresolved)
            and judged.stale
            and judged.digest == active.slot.digest
        ):
            return (
                "True",
                Reason.STALE,
                f"{sentence(judged.stale)} It goes on serving; publish a newer version.",
            )
    stopping = view.candidate is not None and view.spec.rollout.strategy == "StopFirst"
    if active.ready < view.spec.replicas and not stopping:
        why = f": {sentence(active.failure.message)}" if active.failure else "."
        message = f"Only some of the {view.spec.replicas} pods of {active.name} answer{why}"
        return "True", Reason.REPLICAS_MISSING, message
    missing = offline_told(view.nodes or ())
    if missing:
        message = f"{capital(active.name)} serves, and not from every node it is for: {missing}"
        return "True", Reason.SOME_NODES_OFFLINE, message
    return "False", Reason.NONE, "All that was asked for serves."


def _stalled(view: View) -> Told:
    if view.observed.conflicts:
        names = ", ".join(view.observed.conflicts)
        message = (
            f"{names} in this namespace belongs to somebody else and is left alone. Rename or delete it, or give "
            f"the EdgeModel another name. {view.what_serves}"
        )
        return "True", Reason.NAME_CONFLICT, message
    kept = _kept(view, ConditionType.STALLED)
    if kept is not None and kept[1] is not Reason.NAME_CONFLICT:
        return kept
    target = view.target
    if isinstance(target, Unresolved):
        if target.stalled:
            return "True", target.reason, f"{sentence(target.message)} {view.what_serves}"
    elif target.refusal is not None:
        advice = "Publish an artifact that passes, or change the ModelTrustPolicy."
        return "True", Reason.POLICY_REFUSED, f"{sentence(target.refusal[1])} {advice} {view.what_serves}"
    return "False", Reason.NONE, "Nothing waits for a person."
