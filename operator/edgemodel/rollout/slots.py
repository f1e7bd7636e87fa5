"""What changes in a slot without a change of version, and what is written down when a version is started or taken back."""

from collections.abc import Mapping
from datetime import datetime

from edgemodel.api.conditions import Reason
from edgemodel.api.v1alpha1 import EarlierRollback, RolledBack, Slot, Slots
from edgemodel.rollout.facts import NOT_SEEN, Seen, Wanted

EARLIER = 8
"""How many versions are remembered as taken back, besides the last."""
_DID = {
    Reason.GATE_FAILED: "did not pass the gate",
    Reason.GATE_INCONCLUSIVE: "could not be judged",
    Reason.GOLDEN_SAMPLES_FAILED: "does not pass its golden samples",
    Reason.MANUAL: "was not wanted",
}


def refreshed(slots: Slots, target: Slot | None) -> Slots:
    """Carry over what may change about a version without making it another one: where it is pulled from, its entry file."""
    if target is None:
        return slots
    changed: dict[str, Slot] = {}
    for role, slot in (("active", slots.active), ("candidate", slots.candidate)):
        if slot is not None and slot.digest == target.digest:
            kept = {"since": slot.since, "tries": slot.tries, "delivered": slot.delivered}
            fresh = target.model_copy(update=kept)
            if fresh != slot:
                changed[role] = fresh
    return slots.model_copy(update=changed) if changed else slots


def marked(wanted: Wanted, slots: Slots, seen: Mapping[str, Seen], now: datetime, *, urgent: bool) -> Slots:
    """Write down when the nodes had the candidate: once, and not while something holds it, so that its time does not run."""
    candidate = slots.candidate
    if candidate is None:
        return slots
    delivered = candidate.delivered
    if wanted.delivered is None or held_back(wanted, slots, seen, urgent=urgent):
        delivered = None
    elif delivered is None and candidate.digest in wanted.delivered and (urgent or not wanted.paused):
        delivered = now
    if delivered == candidate.delivered:
        return slots
    return slots.model_copy(update={"candidate": candidate.model_copy(update={"delivered": delivered})})


def held_back(wanted: Wanted, slots: Slots, seen: Mapping[str, Seen], *, urgent: bool) -> bool:
    """Say whether a candidate of which there is no pod yet must not be started beside the active version now.

    ``urgent`` is a return to the last good version, which waits for nothing.
    """
    if slots.active is None or slots.candidate is None or urgent:
        return False
    version = seen.get(slots.candidate.digest, NOT_SEEN)
    if version.pods > 0:
        return False
    return wanted.paused or (wanted.hold is not None and not version.deployed)


def undelivered(wanted: Wanted, slots: Slots, seen: Mapping[str, Seen], *, urgent: bool) -> bool:
    """Say whether the candidate must not have a Deployment yet.

    One that has a Deployment keeps it: it was delivered, or its pods fetch for themselves. A node that came since, or lost
    its copy, is no reason to stop them.
    """
    candidate = slots.candidate
    if candidate is None or wanted.delivered is None:
        return False
    if held_back(wanted, slots, seen, urgent=urgent):
        return True
    return candidate.delivered is None and not seen.get(candidate.digest, NOT_SEEN).deployed


def started(target: Slot, last_good: Slot | None, now: datetime) -> Slot:
    """Return a version as the candidate it becomes now."""
    tries = last_good.tries if last_good is not None and last_good.digest == target.digest else 0
    return target.model_copy(update={"since": now, "tries": tries + 1, "delivered": None})


def taken_back(
    slot: Slot,
    reason: Reason,
    message: str,
    wanted: Wanted,
    now: datetime,
    last: RolledBack | None,
) -> RolledBack:
    """Return what is remembered of a version that is taken back now; ``last`` is what was remembered until now."""
    name = slot.version or slot.digest[: len("sha256:") + 12]
    did = _DID.get(reason, "did not get ready")
    return RolledBack(
        digest=slot.digest,
        reason=str(reason),
        message=f"version {name} {did}{': ' if message else ''}{message}"[:4096],
        at=now,
        retry=wanted.retry,
        generation=wanted.generation,
        earlier=_earlier(last, slot.digest),
    )


def banned(remembered: RolledBack | None) -> frozenset[str]:
    """Return the digests that are not tried again until somebody asks for it."""
    if remembered is None:
        return frozenset()
    return frozenset((remembered.digest, *(one.digest for one in remembered.earlier)))


def _earlier(last: RolledBack | None, digest: str) -> list[EarlierRollback]:
    if last is None:
        return []
    one = EarlierRollback(digest=last.digest, reason=last.reason, message=last.message[:512], at=last.at)
    return [found for found in (one, *last.earlier) if found.digest != digest][:EARLIER]
