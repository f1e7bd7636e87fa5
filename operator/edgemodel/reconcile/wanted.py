"""What spec, annotations, policies, clock and cluster ask of the rollout's machine in this pass."""

from collections.abc import Iterable
from datetime import datetime

from edgemodel.api.conditions import Reason
from edgemodel.api.meta import ANNOTATION_PROMOTE, ANNOTATION_RETRY, ANNOTATION_ROLLBACK, seconds
from edgemodel.api.rollout import RolloutSpec
from edgemodel.api.schedule import open_until, opens_at
from edgemodel.api.v1alpha1 import Slot
from edgemodel.errors import Stalled
from edgemodel.reconcile.nodes import NodeFacts, delivered
from edgemodel.reconcile.observed import Judged, Observed
from edgemodel.reconcile.room import shortage
from edgemodel.reconcile.view import judgement, remembered_refusal
from edgemodel.rollout.facts import Hold, Wanted

DEFAULT_STEPS = ((10, 60.0), (50, 60.0))
"""Percent and seconds of a Canary that names no steps."""


def wanted(
    observed: Observed, known: Iterable[str], nodes: tuple[NodeFacts, ...] | None, now: datetime
) -> Wanted:
    """Return what is wanted.

    Args:
        observed: all that was looked at.
        known: digests that nodes may be asked for.
        nodes: the nodes that deliver; None where pods fetch for themselves.
        now: by the operator's clock, for windows.
    """
    model, rollout = observed.model, observed.model.spec.rollout
    annotations = model.metadata.annotations
    new = target(observed)
    return Wanted(
        target=new,
        replicas=model.spec.replicas,
        generation=model.metadata.generation,
        retry=annotations.get(ANNOTATION_RETRY, ""),
        strategy=rollout.strategy,
        steps=steps(rollout),
        on_no_data=rollout.gate.on_no_data or ("Hold" if rollout.strategy == "Canary" else "Proceed"),
        golden=rollout.gate.golden_samples,
        progress_deadline=seconds(rollout.progress_deadline),
        paused=rollout.paused or bool(observed.conflicts),
        hold=_hold(observed, new, now),
        promote=annotations.get(ANNOTATION_PROMOTE, ""),
        rollback=annotations.get(ANNOTATION_ROLLBACK, ""),
        refused=refused(observed),
        delivered=None
        if nodes is None
        else frozenset(digest for digest in known if delivered(nodes, digest)),
    )


def steps(rollout: RolloutSpec) -> tuple[tuple[int, float], ...]:
    """Return percent and seconds of each step; the last is of 100 %."""
    last = (100, seconds(rollout.gate.window))
    if rollout.strategy != "Canary":
        return (last,)
    found = tuple((one.weight, seconds(one.pause)) for one in rollout.steps) or DEFAULT_STEPS
    return found if found[-1][0] == 100 else (*found, last)


def target(observed: Observed) -> Slot | None:
    """Return the version that may be started: resolved, and passed by every policy."""
    found = observed.target
    if not isinstance(found, Judged) or found.refusal is not None:
        return None
    return Slot(
        digest=str(found.digest),
        image=found.image,
        version=found.release.version or "",
        sequence=found.release.sequence,
        verified_by=list(found.verified_by),
        model_file=observed.model.spec.model_file,
    )


def refused(observed: Observed) -> frozenset[str]:
    """Return the digests that do not pass today's policies."""
    found = {
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
        found.add(active.digest)
    return frozenset(found)


def opens(observed: Observed, now: datetime) -> datetime | None:
    """Return when the window opens in which versions may change; None when there is none, or it is open."""
    window = observed.model.spec.rollout.window.activate
    if window is None or open_until(window, now) is not None:
        return None
    return opens_at(window, now)


def _hold(observed: Observed, new: Slot | None, now: datetime) -> Hold | None:
    """Return why the target must not be started now, though it is known, passed and delivered."""
    spec, active = observed.model.spec, observed.model.status.slots.active
    if new is None or active is None or new.digest == active.digest:
        return None
    strategy = spec.rollout.strategy
    if strategy == "Canary" and (observed.gateway is None or observed.gateway_port is None):
        return Hold(
            Reason.GATEWAY_MISSING,
            "Strategy Canary needs the gateway, which gives each version its part of the requests, and the operator works "
            "without one. Turn it on (gateway.enabled in the chart), or set spec.rollout.strategy to Surge.",
        )
    window = spec.rollout.window.activate
    if window is not None:
        try:
            if open_until(window, now) is None:
                when = opens_at(window, now)
                if when is None:
                    return Hold(
                        Reason.INVALID_SPEC,
                        f"spec.rollout.window.activate: {window.schedule!r} never comes.",
                    )
                return Hold(
                    Reason.WAITING_FOR_WINDOW,
                    f"The new version waits for spec.rollout.window.activate, which opens at {when:%Y-%m-%dT%H:%MZ}.",
                )
        except Stalled as error:
            return Hold(Reason.INVALID_SPEC, f"spec.rollout.window.activate: {error.message}.")
    short = shortage(observed, new) if strategy != "StopFirst" and spec.replicas > 0 else None
    return Hold(Reason.INSUFFICIENT_MEMORY, short) if short is not None else None
