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

from edgemodel.api.conditions import Reason
from edgemodel.api.v1alpha1 import EdgeModelStatus, Slot
from edgemodel.reconcile.child import digest_label
from edgemodel.reconcile.children import desired_children, to_apply, to_delete
from edgemodel.reconcile.decision import Decision
from edgemodel.reconcile.events import transitions
from edgemodel.reconcile.gateway import held_slices, kept_slices, leftover_slices, turning
from edgemodel.reconcile.nodes import NodeFacts, delivery_mode, mounting, read_nodes, to_evict
from edgemodel.reconcile.observed import Observed
from edgemodel.reconcile.pods import PodFacts, read_pod
from edgemodel.reconcile.status import summarise, summarise_suspended
from edgemodel.reconcile.verdicts import Verdicts, verdicts
from edgemodel.reconcile.versions import seen_versions, selected_label
from edgemodel.reconcile.view import View
from edgemodel.reconcile.wanted import opens, refused, steps, target, wanted
from edgemodel.rollout.machine import Step, step
from edgemodel.rollout.slots import banned

LOOK_AGAIN_SECONDS = 1.0
"""How soon to look whether the version before the active one may go, or the Service's turn is done."""
ROOM_SECONDS = 30.0
"""How soon to look again whether there is memory for both versions: a node may have got more."""


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
    judged = verdicts(observed, pods, len(steps(model.spec.rollout)), now)
    taken = _step(observed, pods, nodes, judged, now)
    frozen = taken.slots.active.digest if taken.slots.active is not None else None
    running = [slot.digest for slot, _ in taken.run]
    desired = desired_children(
        observed,
        taken,
        frozen if frozen in refused(observed) else None,
        mounting(running, observed.children, facts) if by_nodes else frozenset(),
    )
    known = {*_known(observed), *(slot.digest for slot in _slots_of(taken) if slot is not None)}
    answering = _ready(pods, taken.serve)
    new = summarise(View(observed, taken, pods, nodes, judged=judged, now=now), now)
    written = _changed(old, new)
    return Decision(
        apply=to_apply(desired, observed.children, observed.conflicts),
        delete=(
            *to_delete(
                desired, observed.children, taken, known, held_slices(observed, answering=answering > 0)
            ),
            *leftover_slices(observed),
        ),
        evict=to_evict(facts, sorted(known), pods),
        status=written.status,
        events=written.events,
        requeue_after=_requeue(
            observed,
            taken,
            now,
            turning=taken.serve is not None and turning(observed, answering=answering > 0),
        ),
    )


def _step(
    observed: Observed,
    pods: tuple[PodFacts, ...],
    nodes: tuple[NodeFacts, ...] | None,
    judged: Verdicts,
    now: datetime,
) -> Step:
    """Let the rollout's machine take its step; ``nodes`` is None where pods fetch for themselves."""
    status, known = observed.model.status, _known(observed)
    labels = {digest_label(digest): digest for digest in known}
    selected = selected_label(observed.children)
    if selected == "" and status.slots.active is not None:
        # The Service selects nothing: the gateway goes by the status that it was shown.
        selected = digest_label(status.slots.active.digest)
    return step(
        wanted(observed, known, nodes, now),
        status.slots,
        status.rolled_back,
        seen_versions(known, observed.children, pods, status.slots.candidate, judged),
        None if selected is None else labels.get(selected, selected),
        now,
        status.rollout,
    )


def _known(observed: Observed) -> tuple[str, ...]:
    """Return the digests that status knows, and the target's.

    That of a version that was taken back too: it is in no slot, and a Deployment of it (restored, say) must be known to go.
    """
    status, new = observed.model.status, target(observed)
    slots = (status.slots.active, status.slots.candidate, status.slots.last_good, new)
    back = sorted(banned(status.rolled_back))
    return tuple(dict.fromkeys((*(slot.digest for slot in slots if slot is not None), *back)))


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


def _requeue(observed: Observed, taken: Step, now: datetime, *, turning: bool) -> float | None:
    """Return in how many seconds time alone may change something."""
    if taken.draining or turning:
        return LOOK_AGAIN_SECONDS
    moments = [taken.due, taken.deadline]
    if taken.held is not None and taken.held.reason is Reason.WAITING_FOR_WINDOW:
        opening = opens(observed, now)
        moments.append(opening.timestamp() if opening is not None else None)
    if taken.held is not None and taken.held.reason is Reason.INSUFFICIENT_MEMORY:
        moments.append(now.timestamp() + ROOM_SECONDS)
    ahead = [moment - now.timestamp() for moment in moments if moment is not None]
    return min((one for one in ahead if one > 0), default=None)
