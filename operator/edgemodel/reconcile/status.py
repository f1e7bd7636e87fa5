"""Puts the new status together: counts, slots, marks and conditions.

A status that says the same as the old one *is* the old one: then nothing is written. No field here ticks by itself.
"""

from datetime import datetime

from edgemodel.api.conditions import ConditionType, Reason, merge
from edgemodel.api.v1alpha1 import EdgeModel, EdgeModelStatus, Slot, Tag
from edgemodel.reconcile.child import pod_selector
from edgemodel.reconcile.conditions import statements, suspended
from edgemodel.reconcile.nodes import counts, states, transfer
from edgemodel.reconcile.observed import Judged
from edgemodel.reconcile.service import url
from edgemodel.reconcile.verdicts import told
from edgemodel.reconcile.view import View


def summarise(view: View, now: datetime) -> EdgeModelStatus:
    """Return the status after one pass."""
    old, step, model = view.old, view.step, view.model
    serve, active = view.serve, step.slots.active
    newest = view.subject.slot.digest if view.subject is not None else None
    nodes = view.nodes
    changed = active is not None and (old.slots.active is None or old.slots.active.digest != active.digest)
    return EdgeModelStatus(
        observed_generation=model.metadata.generation,
        replicas=len(serve.pods) if serve else 0,
        ready_replicas=serve.ready if serve else 0,
        selector=_selector(model, step.serve),
        url=url(model) if serve else "",
        # It stays when the gateway is turned off: one that drains goes by it until the last proxy leads past it.
        gateway_port=old.gateway_port if view.observed.gateway is None else view.observed.gateway_port,
        tag=_tag(view, now),
        slots=step.slots,
        rollout=told(step.rollout, old.rollout, view.judged.results) if step.rollout is not None else None,
        rolled_back=step.rolled_back,
        nodes=counts(nodes, newest) if nodes is not None else None,
        node_statuses=states(nodes, newest) if nodes is not None else [],
        transfer=transfer(nodes, newest) if nodes is not None else None,
        highest_sequence=_highest(old.highest_sequence, active),
        last_verified_time=now if changed else old.last_verified_time,
        conditions=list(
            merge(old.conditions, statements(view), generation=model.metadata.generation, now=now)
        ),
    )


def summarise_suspended(model: EdgeModel, ready: int, now: datetime) -> EdgeModelStatus:
    """Return the status of a model that is left alone: only Ready speaks, all else stays as it was."""
    old = model.status
    status, reason, message = suspended(ready)
    kept = [
        (ConditionType(condition.type), condition.status, Reason(condition.reason), condition.message)
        for condition in old.conditions
        if condition.type in ConditionType.__members__.values()
        and condition.type != ConditionType.READY
        and condition.reason in Reason.__members__.values()
    ]
    merged = merge(
        old.conditions,
        [(ConditionType.READY, status, reason, message), *kept],
        generation=model.metadata.generation,
        now=now,
    )
    return old.model_copy(
        update={
            "observed_generation": model.metadata.generation,
            "ready_replicas": ready,
            "conditions": list(merged),
        }
    )


def _selector(model: EdgeModel, serve: Slot | None) -> str:
    """Return the selector of the pods that serve, as text for the scale subresource."""
    if serve is None:
        return ""
    return ",".join(f"{key}={value}" for key, value in pod_selector(model, serve).items())


def _tag(view: View, now: datetime) -> Tag | None:
    """Return what spec.image stands for; the old answer while there is no new one."""
    old, target = view.old.tag, view.target
    if not isinstance(target, Judged):
        return old
    if old is not None and old.ref == view.spec.image and old.digest == target.digest:
        return old
    return Tag(ref=view.spec.image, digest=str(target.digest), resolved_at=now)


def _highest(mark: int | None, active: Slot | None) -> int | None:
    """Return the anti-downgrade mark: it only rises, and only for versions that took over."""
    if active is None or active.sequence is None:
        return mark
    return active.sequence if mark is None else max(mark, active.sequence)
