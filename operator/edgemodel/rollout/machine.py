"""Which version serves, which is tried, which is gone back to: one pure step, taken once per pass.

``step`` looks at what is wanted, at the slots that status remembers and at what was seen of each version, and returns the
new slots and what must run. It keeps no other memory: an operator that restarts at any point goes on from there.

What it promises:

* there is at most one candidate;
* Surge leaves the active version at full size until the candidate has all its replicas ready;
* a version that was taken back is not tried again until the spec's generation or the retry annotation changes;
* a version that today's policies refuse is never started, and one that serves is not stopped for it;
* where nodes deliver, no pod of a candidate is made, and none of the active version stopped, before the nodes have it; the
  active version is never touched for want of delivery;
* an old version goes only after the Service was seen to select another one, and not before every node had time to
  follow.

It leaves to others: judging artifacts (``wanted.target`` has passed), reading pods (``Seen``), building objects, conditions.

::

    target ──start──▶ candidate ──(delivered)──all ready──▶ active ──replaced──▶ last good
                          │
                          └─fails, active exists──▶ rolled back (the active version goes on, or comes back)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from edgemodel.api.conditions import Reason
from edgemodel.api.v1alpha1 import RolledBack, Slot, Slots

SWITCH_SECONDS = 3.0
"""How long after a promotion the version before it stays: EndpointSlices are written and every node's proxy follows. (The
server's own drain delay covers the same for a pod that goes; this covers slow nodes.)"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What spec, annotations and trust ask for."""

    target: Slot | None
    """The version that spec.image stands for, if it is known and passed; its ``since`` and ``tries`` are ignored."""
    replicas: int
    generation: int
    retry: str = ""
    strategy: Literal["Surge", "StopFirst"] = "Surge"
    progress_deadline: float = 600.0
    """Seconds from a candidate's delivery, or start where pods fetch for themselves, to its end if it does not get ready;
    0 means never."""
    paused: bool = False
    refused: frozenset[str] = frozenset()
    """Digests that do not pass today's policies."""
    delivered: frozenset[str] | None = None
    """Digests that the nodes have; None where pods fetch for themselves, so that there is nothing to wait for."""


SURGE_NEEDS_ROOM = (
    "Surge needs room for both versions; with spec.rollout.strategy StopFirst room for one is enough"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pod does not answer; ``fatal`` when waiting longer will not mend it."""

    reason: Reason
    message: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one version."""

    deployed: bool = False
    """Its Deployment exists."""
    replicas: int = 0
    """How many pods its Deployment asks for."""
    pods: int = 0
    """Pods that hold memory, those that are going included."""
    ready: int = 0
    """Pods that answer and are not going."""
    failure: Failure | None = None
    """The worst thing that any of its pods reports."""


NOT_SEEN = Seen()


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one step."""

    slots: Slots
    rolled_back: RolledBack | None
    run: tuple[tuple[Slot, int], ...]
    """Versions that must have a Deployment, and its replicas."""
    serve: Slot | None
    """The version that the Service selects."""
    remove: frozenset[str]
    """Versions (keys of ``seen``) whose Deployment goes now."""
    draining: frozenset[str]
    """Versions (keys of ``seen``) that go once requests surely go to another one."""
    held: bool
    """A verified target waits for spec.rollout.paused to end."""
    waiting: bool = False
    """The candidate waits to be delivered, or, delivered, for the pause to end: it has no Deployment."""


def step(
    wanted: Wanted,
    slots: Slots,
    rolled_back: RolledBack | None,
    seen: Mapping[str, Seen],
    selected: str | None,
    now: datetime,
) -> Step:
    """Take one step.

    Args:
        wanted: what spec, annotations and trust ask for.
        slots: the slots that status remembers.
        rolled_back: the version that status remembers as taken back.
        seen: by digest; Deployments that belong to no slot may be keyed by any other name.
        selected: key of the version that the live Service selects; None when there is no Service.
        now: becomes ``since`` and ``at``.

    Examples (replicas 2, S = Surge, F = StopFirst):

    ======================================================  =================================================
    before                                                  after
    ======================================================  =================================================
    target A, no slot                                       candidate A; run A=2; serve A
    candidate A, one pod ready, no active                   active A
    active A, target B, S                                   candidate B; run A=2, B=2; serve A
    active A, candidate B 1 of 2 ready, S                   the same
    active A, candidate B 2 of 2 ready, S                   active B, last good A; serve B; A drains
    the same, Service selects B, 3 s later                  A is removed
    active A, candidate B cannot load, S                    rolled back B; run A=2; B is removed
    active A with pods, target B, F                         candidate B; run A=0, B=0; serve A
    active A without pods, candidate B, F                   run A=0, B=2; serve B once it answers
    active A without pods, candidate B cannot load, F       rolled back B; run A=2; serve A
    active A, candidate B, target A                         no candidate; B is removed
    active A, candidate B, target C                         candidate C; B is removed
    active A, candidate B not yet delivered, S or F         run A=2; serve A
    ======================================================  =================================================
    """
    if rolled_back is not None and (
        rolled_back.generation != wanted.generation or rolled_back.retry != wanted.retry
    ):
        rolled_back = None
    slots = _delivered(wanted, _refreshed(slots, wanted.target), seen, now)
    slots, rolled_back = _judged(wanted, slots, rolled_back, seen, now)
    startable = _startable(wanted, slots, rolled_back)
    if startable is not None and (not wanted.paused or wanted.delivered is not None):
        slots = Slots(
            active=slots.active,
            candidate=_started(startable, slots.last_good, now),
            last_good=slots.last_good,
        )
        slots = _delivered(wanted, slots, seen, now)
    # A Deployment of it that a pass left which was cut off is no start either: paused, nothing is started.
    waiting = _waiting(wanted, slots, seen) or (
        startable is not None and wanted.paused and slots.candidate is not None
    )
    run = _run(wanted, slots, seen, waiting=waiting)
    serve = _serve(wanted, slots, seen)
    going = {key for key, version in seen.items() if version.deployed} - {slot.digest for slot, _ in run}
    draining = going & _receiving(slots, selected, now) if serve is not None else set()
    return Step(
        slots=slots,
        rolled_back=rolled_back,
        run=run,
        serve=serve,
        remove=frozenset(going - draining),
        draining=frozenset(draining),
        held=wanted.paused and (startable is not None or waiting),
        waiting=waiting,
    )


def _refreshed(slots: Slots, target: Slot | None) -> Slots:
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


def _delivered(wanted: Wanted, slots: Slots, seen: Mapping[str, Seen], now: datetime) -> Slots:
    """Write down when the nodes had the candidate: once, and not while a pause holds it, so that its time does not run."""
    candidate = slots.candidate
    if candidate is None:
        return slots
    delivered = candidate.delivered
    if wanted.delivered is None or (slots.active is not None and _held_back(wanted, candidate, seen)):
        delivered = None
    elif delivered is None and candidate.digest in wanted.delivered and not wanted.paused:
        delivered = now
    if delivered == candidate.delivered:
        return slots
    return slots.model_copy(update={"candidate": candidate.model_copy(update={"delivered": delivered})})


def _held_back(wanted: Wanted, candidate: Slot, seen: Mapping[str, Seen]) -> bool:
    """Say whether a pause finds the candidate without a pod: then it is not started before the pause ends."""
    return wanted.paused and seen.get(candidate.digest, NOT_SEEN).pods == 0


def _waiting(wanted: Wanted, slots: Slots, seen: Mapping[str, Seen]) -> bool:
    """Say whether the candidate must not have a Deployment yet.

    One that has a Deployment keeps it: it was delivered, or its pods fetch for themselves. A node that came since, or lost
    its copy, is no reason to stop them.
    """
    candidate = slots.candidate
    if candidate is None or wanted.delivered is None:
        return False
    if slots.active is not None and _held_back(wanted, candidate, seen):
        return True
    return candidate.delivered is None and not seen.get(candidate.digest, NOT_SEEN).deployed


def _judged(
    wanted: Wanted, slots: Slots, rolled_back: RolledBack | None, seen: Mapping[str, Seen], now: datetime
) -> tuple[Slots, RolledBack | None]:
    """Promote the candidate, take it back, drop it or let it go on."""
    active, candidate, last_good = slots.active, slots.candidate, slots.last_good
    if candidate is None:
        return slots, rolled_back
    version = seen.get(candidate.digest, NOT_SEEN)
    promoted = Slots(
        active=candidate.model_copy(update={"since": now}), last_good=active or last_good, candidate=None
    )
    dropped = Slots(active=active, last_good=last_good)
    refused = candidate.digest in wanted.refused
    if active is None:
        # The Service selects a first version from the start: once it answers it serves, paused or refused or not.
        idle = wanted.replicas == 0 and not refused and not _waiting(wanted, slots, seen)
        if version.ready > 0 or idle:
            return promoted, rolled_back
        superseded = wanted.target is not None and wanted.target.digest != candidate.digest
        return (dropped if refused or superseded else slots), rolled_back
    if refused or (wanted.target is not None and wanted.target.digest != candidate.digest):
        return dropped, rolled_back
    if _waiting(wanted, slots, seen):
        return slots, rolled_back
    if wanted.paused and version.pods == 0:
        return dropped, rolled_back  # starts afresh, with a full deadline, when the pause ends
    if version.ready >= wanted.replicas:
        return (slots if wanted.paused else promoted), rolled_back
    failure = version.failure
    if failure is not None and failure.fatal:
        return dropped, _taken_back(candidate, failure.reason, failure.message, wanted, now)
    if not wanted.paused and _overdue(candidate, wanted.progress_deadline, now):
        found = f"{version.ready} of {wanted.replicas} pods were ready after {wanted.progress_deadline:g} s"
        if failure is not None:
            found = f"{found}; {failure.reason}: {failure.message}"
            if failure.reason is Reason.UNSCHEDULABLE and wanted.strategy == "Surge":
                found = f"{found} ({SURGE_NEEDS_ROOM})"
        return dropped, _taken_back(candidate, Reason.PROGRESS_DEADLINE_EXCEEDED, found, wanted, now)
    return slots, rolled_back


def _startable(wanted: Wanted, slots: Slots, rolled_back: RolledBack | None) -> Slot | None:
    """Return the target if it should be started, were there no pause."""
    target = wanted.target
    if target is None or slots.candidate is not None or target.digest in wanted.refused:
        return None
    if slots.active is not None and slots.active.digest == target.digest:
        return None
    if rolled_back is not None and rolled_back.digest == target.digest and slots.active is not None:
        return None
    return target


def _started(target: Slot, last_good: Slot | None, now: datetime) -> Slot:
    tries = last_good.tries if last_good is not None and last_good.digest == target.digest else 0
    return target.model_copy(update={"since": now, "tries": tries + 1})


def _taken_back(slot: Slot, reason: Reason, message: str, wanted: Wanted, now: datetime) -> RolledBack:
    name = slot.version or slot.digest[: len("sha256:") + 12]
    return RolledBack(
        digest=slot.digest,
        reason=str(reason),
        message=f"version {name} did not get ready: {message}"[:4096],
        at=now,
        retry=wanted.retry,
        generation=wanted.generation,
    )


def overdue_at(candidate: Slot, deadline: float) -> float | None:
    """Return the POSIX time at which a candidate that has a Deployment is given up, None for never."""
    began = candidate.delivered or candidate.since
    if began is None or deadline <= 0:
        return None
    return began.timestamp() + deadline


def _overdue(candidate: Slot, deadline: float, now: datetime) -> bool:
    at = overdue_at(candidate, deadline)
    return at is not None and now.timestamp() >= at


def _run(
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


def _receiving(slots: Slots, selected: str | None, now: datetime) -> set[str]:
    """Return the versions that may still receive requests: what the Service selects, and what it selected until just now."""
    receiving = {selected} if selected is not None else set()
    since = slots.active.since if slots.active is not None else None
    if slots.last_good is not None and since is not None and (now - since).total_seconds() < SWITCH_SECONDS:
        receiving.add(slots.last_good.digest)
    return receiving


def _serve(wanted: Wanted, slots: Slots, seen: Mapping[str, Seen]) -> Slot | None:
    """Return the version that the Service selects."""
    active, candidate = slots.active, slots.candidate
    if active is None:
        return candidate
    if (
        candidate is not None
        and wanted.strategy == "StopFirst"
        and seen.get(active.digest, NOT_SEEN).ready == 0
        and seen.get(candidate.digest, NOT_SEEN).ready > 0
    ):
        return candidate  # the active version has stopped: any pod that answers shortens the gap
    return active
