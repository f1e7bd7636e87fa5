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
from edgemodel.reconcile.gateway import trouble, waiting
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
from edgemodel.reconcile.progress import (
    JUDGED,
    held,
    kept_closed,
    outlook,
    progressing,
    remembered,
    retry,
)
from edgemodel.reconcile.service import url
from edgemodel.reconcile.view import Told, View, capital, named, reason_of, sentence


def statements(view: View) -> tuple[Statement, ...]:
    """Return one statement for each type, Ready first."""
    told: tuple[tuple[ConditionType, Told], ...] = (
        (ConditionType.READY, _ready(view)),
        (ConditionType.ARTIFACT_VERIFIED, _verified(view)),
        (ConditionType.ARTIFACT_DELIVERED, arrival(view)),
        (ConditionType.MODEL_LOADED, _loaded(view)),
        (ConditionType.PROGRESSING, progressing(view)),
        (ConditionType.ROLLED_BACK, _rolled_back(view)),
        (ConditionType.DEGRADED, _degraded(view)),
        (ConditionType.STALLED, _stalled(view)),
    )
    return tuple((kind, status, reason, message) for kind, (status, reason, message) in told)


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
    if view.step.closed and serve.ready:
        return "False", *kept_closed(view, serve)
    kept_out = trouble(view.observed)
    if serve.ready and kept_out is not None:
        return "False", *kept_out
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
            return "False", view.step.held.reason, held(view)
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
        return "False", view.step.held.reason, held(view)
    return "Unknown", Reason.RECONCILING, "The first version has not been started yet."


def _verified(view: View) -> Told:
    target = view.target
    kept = remembered(view, ConditionType.ARTIFACT_VERIFIED)
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
        if reason in JUDGED and reason is not Reason.GOLDEN_SAMPLES_FAILED:
            return "True", Reason.LOADED, f"It was loaded before it was taken back. {message}"
        no = reason in LOAD_REASONS | PLACE_REASONS or reason is Reason.GOLDEN_SAMPLES_FAILED
        return ("False" if no else "Unknown"), reason, message
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
            f"{capital(subject.name)}: {sentence(failure.message)} {outlook(view)}",
        )
    if view.candidate is not None and subject.ready and view.judged.golden == "Fail":
        return "False", *kept_closed(view, subject)
    if subject.ready:
        return "True", Reason.LOADED, f"{capital(subject.name)} is loaded."
    return "Unknown", Reason.STARTING, f"No pod of {subject.name} has loaded it yet."


def _rolled_back(view: View) -> Told:
    taken_back = view.taken_back
    if taken_back is None:
        return "False", Reason.NONE, "Nothing was taken back."
    reason = reason_of(taken_back.reason)
    why, again = sentence(taken_back.message), retry(taken_back)
    message = f"{taken_back.digest[:19]} was taken back: {why} {view.what_serves} {again}"
    return "True", (Reason.LOAD_FAILED if reason in LOAD_REASONS else reason), message


def _degraded(view: View) -> Told:
    active = view.active
    if active is None:
        return "False", Reason.NONE, "Nothing serves with less than was asked for."
    kept = remembered(view, ConditionType.DEGRADED)
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
    past_gateway = waiting(view.observed)
    if past_gateway:
        return "True", Reason.GATEWAY_MISSING, f"{capital(active.name)} serves. {past_gateway}"
    return "False", Reason.NONE, "All that was asked for serves."


def _stalled(view: View) -> Told:
    if view.observed.conflicts:
        names = ", ".join(view.observed.conflicts)
        message = (
            f"{names} in this namespace belongs to somebody else and is left alone. Rename or delete it, or give "
            f"the EdgeModel another name. {view.what_serves}"
        )
        return "True", Reason.NAME_CONFLICT, message
    kept = remembered(view, ConditionType.STALLED)
    if kept is not None and kept[1] is not Reason.NAME_CONFLICT:
        return kept
    target = view.target
    if isinstance(target, Unresolved):
        if target.stalled:
            return "True", target.reason, f"{sentence(target.message)} {view.what_serves}"
    elif target.refusal is not None:
        advice = "Publish an artifact that passes, or change the ModelTrustPolicy."
        return "True", Reason.POLICY_REFUSED, f"{sentence(target.refusal[1])} {advice} {view.what_serves}"
    waits = view.step.held
    if waits is not None and waits.reason in (Reason.GATEWAY_MISSING, Reason.INVALID_SPEC):
        return "True", waits.reason, f"{waits.message} {view.what_serves}"
    return "False", Reason.NONE, "Nothing waits for a person."
