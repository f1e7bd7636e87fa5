"""One pass, decided: from what was observed to what is applied, deleted, written and told. Pure.

Rules that are kept here and nowhere else:

* ``spec.suspend`` stops everything but one condition, and that the address of a gateway pod is followed: what runs goes on
  running.
* A name that belongs to somebody else is never taken over; until it is free no version is started or promoted.
* An active version that today's policies refuse goes on serving. Its Deployment is left as it is, but for fewer
  replicas when the spec says so; if it is missing it is not made again, and a pod that replaces one of its pods is judged
  by today's policies (the ConfigMap carries them) and stays down. Conditions say so.
* The same decision comes out of the same observation, whoever asks and however often: an operator that died between two
  writes is continued by the next pass.
"""

from dataclasses import replace
from datetime import datetime

from edgemodel.api.meta import ANNOTATION_RETRY, seconds
from edgemodel.api.v1alpha1 import EdgeModelSpec, EdgeModelStatus, Slot
from edgemodel.reconcile.child import digest_label
from edgemodel.reconcile.children import desired_children, to_apply, to_delete
from edgemodel.reconcile.decision import Decision
from edgemodel.reconcile.events import transitions
from edgemodel.reconcile.gateway import held_slices, kept_slices, leftover_slices, turning
from edgemodel.reconcile.nodes import (
    NodeFacts,
    delivered,
    delivery_mode,
    mounting,
    read_nodes,
    to_evict,
)
from edgemodel.reconcile.observed import Judged, Observed
from edgemodel.reconcile.pods import PodFacts, read_pod
from edgemodel.reconcile.status import summarise, summarise_suspended
from edgemodel.reconcile.versions import seen_versions, selected_label
from edgemodel.reconcile.view import View, judgement, remembered_refusal
from edgemodel.rollout.machine import Step, Wanted, overdue_at, step

LOOK_AGAIN_SECONDS = 1.0
"""How soon to look whether the version before the active one may go, or the Service's turn is done."""


def decide(observed: Observed, now: datetime) -> Decision:
    """Return what this pass does about one EdgeModel."""
    model, old = observed.model, observed.model.status
    now = now.replace(microsecond=0)  # what status can hold
    if model.metadata.deletion_timestamp is not None:
        return Decision()  # the garbage collector takes the children
    pods = tuple(read_pod(pod) for pod in observed.pods)
    if model.spec.suspend:
        left_alone = _changed(old, summarise_suspended(model, _answering(old, pods), now))
        return replace(left_alone, apply=to_apply(kept_slices(observed), observed.children, ()))
    facts = read_nodes(observed, pods, now)
    by_nodes = delivery_mode(model, observed.children, facts, pods) == "Node"
    nodes = facts if by_nodes else None
    taken = _step(observed, pods, nodes, now)
    frozen = taken.slots.active.digest if taken.slots.active is not None else None
    running = [slot.digest for slot, _ in taken.run]
    desired = desired_children(
        observed,
        taken,
        frozen if frozen in _refused(observed) else None,
        mounting(running, observed.children, facts) if by_nodes else frozenset(),
    )
    # The target too: one that was taken back is in no slot, and a Deployment of it (restored, say) must be known to go.
    known = (*_slots(old), *_slots_of(taken), _target(observed))
    slots = [slot for slot in known if slot is not None]
    deadline = _deadline(taken, model.spec)
    overdue = deadline is not None and now.timestamp() >= deadline
    answering = _ready(pods, taken.serve)
    new = summarise(View(observed, taken, pods, nodes, overdue=overdue), now)
    written = _changed(old, new)
    return Decision(
        apply=to_apply(desired, observed.children, observed.conflicts),
        delete=(
            *to_delete(
                desired, observed.children, taken, slots, held_slices(observed, answering=answering > 0)
            ),
            *leftover_slices(observed),
        ),
        evict=to_evict(facts, [slot.digest for slot in slots], pods),
        status=written.status,
        events=written.events,
        requeue_after=_requeue(
            taken,
            deadline,
            now,
            turning=taken.serve is not None and turning(observed, answering=answering > 0),
        ),
    )


def _step(
    observed: Observed, pods: tuple[PodFacts, ...], nodes: tuple[NodeFacts, ...] | None, now: datetime
) -> Step:
    """Let the rollout's machine take its step; ``nodes`` is None where pods fetch for themselves."""
    model, status = observed.model, observed.model.status
    target = _target(observed)
    known = [slot.digest for slot in (*_slots(status), target) if slot is not None]
    labels = {digest_label(digest): digest for digest in known}
    selected = selected_label(observed.children)
    if selected == "" and status.slots.active is not None:
        # The Service selects nothing: the gateway goes by the status that it was shown.
        selected = digest_label(status.slots.active.digest)
    wanted = Wanted(
        target=target,
        replicas=model.spec.replicas,
        generation=model.metadata.generation,
        retry=model.metadata.annotations.get(ANNOTATION_RETRY, ""),
        strategy=model.spec.rollout.strategy,
        progress_deadline=seconds(model.spec.rollout.progress_deadline),
        paused=model.spec.rollout.paused or bool(observed.conflicts),
        refused=_refused(observed),
        delivered=None
        if nodes is None
        else frozenset(digest for digest in known if delivered(nodes, digest)),
    )
    return step(
        wanted,
        status.slots,
        status.rolled_back,
        seen_versions(known, observed.children, pods),
        None if selected is None else labels.get(selected, selected),
        now,
    )


def _target(observed: Observed) -> Slot | None:
    """Return the version that may be started: resolved, and passed by every policy."""
    target = observed.target
    if not isinstance(target, Judged) or target.refusal is not None:
        return None
    return Slot(
        digest=str(target.digest),
        image=target.image,
        version=target.release.version or "",
        sequence=target.release.sequence,
        verified_by=list(target.verified_by),
        model_file=observed.model.spec.model_file,
    )


def _refused(observed: Observed) -> frozenset[str]:
    """Return the digests that do not pass today's policies."""
    refused = {
        str(judged.digest)
        for judged in (observed.target, observed.active)
        if isinstance(judged, Judged) and judged.refusal is not None
    }
    active = observed.model.status.slots.active
    if (
        active is not None
        and judgement(observed, active) is None
        and remembered_refusal(observed.model.status)
    ):
        refused.add(active.digest)
    return frozenset(refused)


def _slots(status: EdgeModelStatus) -> tuple[Slot | None, ...]:
    return status.slots.active, status.slots.candidate, status.slots.last_good


def _slots_of(taken: Step) -> tuple[Slot | None, ...]:
    return taken.slots.active, taken.slots.candidate, taken.slots.last_good


def _answering(status: EdgeModelStatus, pods: tuple[PodFacts, ...]) -> int:
    """Return how many pods of the version that serves are ready, without judging anything."""
    return _ready(pods, status.slots.active or status.slots.candidate)


def _ready(pods: tuple[PodFacts, ...], slot: Slot | None) -> int:
    """Return how many pods of a version are ready."""
    return sum(pod.ready for pod in pods if slot is not None and pod.digest == digest_label(slot.digest))


def _changed(old: EdgeModelStatus, new: EdgeModelStatus) -> Decision:
    """Return a decision that writes and tells what changed, if anything did."""
    if new == old:
        return Decision()
    return Decision(status=new, events=transitions(old, new))


def _deadline(taken: Step, spec: EdgeModelSpec) -> float | None:
    """Return the POSIX time at which the candidate is given up."""
    candidate = taken.slots.candidate
    if candidate is None or spec.rollout.paused or taken.waiting:
        return None
    return overdue_at(candidate, seconds(spec.rollout.progress_deadline))


def _requeue(taken: Step, deadline: float | None, now: datetime, *, turning: bool) -> float | None:
    if taken.draining or turning:
        return LOOK_AGAIN_SECONDS
    if deadline is None or deadline <= now.timestamp():
        return None
    return deadline - now.timestamp()
