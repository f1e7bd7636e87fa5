"""Which versions run and at what size, which one the Service selects, and which old ones may still receive requests."""

from collections.abc import Mapping
from datetime import datetime

from edgemodel.api.conditions import Reason
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import RolledBack, Slot, Slots
from edgemodel.rollout.facts import NOT_SEEN, Seen, Wanted

SWITCH_SECONDS = 3.0
"""How long after a promotion the version before it stays: EndpointSlices are written and every node's proxy follows. (The
server's own drain delay covers the same for a pod that goes; this covers slow nodes.)"""


def to_run(
    wanted: Wanted, slots: Slots, seen: Mapping[str, Seen], *, waiting: bool
) -> tuple[tuple[Slot, int], ...]:
    """Return the versions that must have a Deployment, each with its replicas."""
    run: list[tuple[Slot, int]] = []
    active, candidate = slots.active, None if waiting else slots.candidate
    stop_first = wanted.strategy == "StopFirst" and active is not None and candidate is not None
    if active is not None:
        replicas = 0 if stop_first else wanted.replicas
        version = seen.get(active.digest, NOT_SEEN)
        if active.digest not in wanted.refused:
            run.append((active, replicas))
        elif version.deployed:
            run.append((active, min(version.replicas, replicas)))
    if candidate is not None:
        waits = (
            stop_first
            and active is not None
            and seen.get(active.digest, NOT_SEEN).pods > 0
            and seen.get(candidate.digest, NOT_SEEN).pods == 0
        )
        run.append((candidate, 0 if waits else wanted.replicas))
    return tuple(run)


def to_serve(wanted: Wanted, slots: Slots, seen: Mapping[str, Seen], at: RolloutStatus | None) -> Slot | None:
    """Return the version that the Service selects: the candidate once it gets all requests and can take them."""
    active, candidate = slots.active, slots.candidate
    if active is None:
        return candidate
    if candidate is None or at is None or at.step == 0 or at.weight < 100:
        return active
    ready, other = seen.get(candidate.digest, NOT_SEEN).ready, seen.get(active.digest, NOT_SEEN).ready
    # Where the active version has stopped, any pod that answers shortens the gap.
    return candidate if ready > 0 and (ready >= wanted.replicas or ready > other) else active


def receiving(slots: Slots, banned: RolledBack | None, selected: str | None, now: datetime) -> set[str]:
    """Return the versions that may still receive requests: what the Service selects, and what it selected until just now."""
    found = {selected} if selected is not None else set()
    since = slots.active.since if slots.active is not None else None
    if since is not None and (now - since).total_seconds() < SWITCH_SECONDS:
        if slots.last_good is not None:
            found.add(slots.last_good.digest)
        elif banned is not None and banned.reason == Reason.MANUAL:
            found.add(banned.digest)  # the active one has taken over from it
    return found
