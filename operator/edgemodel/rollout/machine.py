"""Which version serves, which is tried, which is gone back to: one pure step, taken once per pass.

``step`` looks at what is wanted, at the slots and the rollout that status remembers and at what was seen of each version,
and returns the new ones and what must run. It keeps no other memory: an operator that restarts at any point goes on from
there.

What it promises:

* there is at most one candidate, and it is one until its last step has passed; till then the version before it stays active;
* Surge and Canary leave the active version at full size until the candidate has replaced it;
* a version that was taken back is not tried again until the spec's generation or the retry annotation changes, and not at
  all as long as an order says that it is not to serve;
* a version that today's policies refuse is never started, and one that serves is not stopped for it;
* where nodes deliver, no pod of a candidate is made, and none of the active version stopped, before the nodes have it; the
  active version is never touched for want of delivery;
* an old version goes only after the Service was seen to select another one, and not before every node had time to
  follow.

It leaves to others: judging artifacts (``wanted.target`` has passed), reading pods and judging answers (``Seen``), building
objects, conditions. How a candidate's share grows: ``steps``.

::

    target ──start──▶ candidate ──(delivered)──ready, step 1 … last──▶ active ──replaced──▶ last good
                          │                          │                    │                    │
                          └───fails, active exists───┴──▶ rolled back ◀───└── order: roll back ┘ becomes the candidate
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from edgemodel.api.conditions import Reason
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import RolledBack, Slot, Slots
from edgemodel.rollout.facts import ALL_AT_ONCE, NOT_SEEN, SURGE_NEEDS_ROOM, Hold, Seen, Wanted, names
from edgemodel.rollout.running import receiving, to_run, to_serve
from edgemodel.rollout.slots import banned, held_back, marked, refreshed, started, taken_back, undelivered
from edgemodel.rollout.steps import move

PAUSED = Hold(Reason.PAUSED, "spec.rollout.paused is true")


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
    held: Hold | None = None
    """Why a verified target is not started, or a candidate does not go on."""
    waiting: bool = False
    """The candidate waits to be delivered, or, delivered, for what holds it to end: it has no Deployment."""
    rollout: RolloutStatus | None = None
    """How far the candidate has come; None when there is none."""
    closed: bool = False
    """``serve`` is a first version that must take no requests (yet): the Service selects nothing."""
    inconclusive: bool = False
    """The candidate has lasted its step's time, and waits because the gate knows too little."""
    due: float | None = None
    """POSIX time at which time alone moves the candidate on; None if it never does."""
    deadline: float | None = None
    """POSIX time at which the candidate is given up (a first one: called late) if its pods are not ready; None for never."""

    @property
    def weight(self) -> int:
        """Percent of requests that the candidate gets; 0 when there is none."""
        return self.rollout.weight if self.rollout is not None else 0


@dataclass(slots=True)
class _State:
    """What one step works on."""

    slots: Slots
    rolled_back: RolledBack | None
    at: RolloutStatus | None
    inconclusive: bool = False
    due: float | None = None

    @property
    def urgent(self) -> bool:
        """The candidate is what an active version makes way for that is not to serve."""
        active, last = self.slots.active, self.rolled_back
        return active is not None and last is not None and last.digest == active.digest

    def start(self, target: Slot, steps: int, now: datetime) -> None:
        """Make a version the candidate, in place of any other."""
        slots = self.slots
        candidate = started(target, slots.last_good, now)
        self.slots = Slots(active=slots.active, candidate=candidate, last_good=slots.last_good)
        self.at = RolloutStatus(steps=steps, started_at=now)

    def drop(self, rolled_back: RolledBack | None = None) -> None:
        """Give the candidate up; ``rolled_back`` is what is remembered of it."""
        if rolled_back is not None:
            # What was to be gone back to, and is no good, is not gone back to again.
            last_good = None if self.urgent else self.slots.last_good
            self.rolled_back = rolled_back
        else:
            last_good = self.slots.last_good
        self.slots = Slots(active=self.slots.active, last_good=last_good)
        self.at, self.inconclusive, self.due = None, False, None

    def promote(self, now: datetime) -> None:
        """Make the candidate the active version."""
        active, candidate = self.slots.active, self.slots.candidate
        assert candidate is not None
        last_good = None if self.urgent else active or self.slots.last_good
        self.slots = Slots(active=candidate.model_copy(update={"since": now}), last_good=last_good)
        self.at = None


def step(
    wanted: Wanted,
    slots: Slots,
    rolled_back: RolledBack | None,
    seen: Mapping[str, Seen],
    selected: str | None,
    now: datetime,
    rollout: RolloutStatus | None = None,
) -> Step:
    """Take one step.

    Args:
        wanted: what spec, annotations and trust ask for.
        slots: the slots that status remembers.
        rolled_back: the version that status remembers as taken back.
        seen: by digest; Deployments that belong to no slot may be keyed by any other name.
        selected: key of the version that the live Service selects; None when there is no Service.
        now: becomes ``since`` and ``at``.
        rollout: how far status remembers the candidate to have come.

    Examples (replicas 2, S = Surge, F = StopFirst, C = Canary of 10 % and 100 %):

    ======================================================  =================================================
    before                                                  after
    ======================================================  =================================================
    target A, no slot                                       candidate A; run A=2; serve A, closed
    candidate A, one pod ready, no active                   active A
    active A, target B, S                                   candidate B; run A=2, B=2; serve A
    active A, candidate B 1 of 2 ready, S                   the same
    active A, candidate B 2 of 2 ready, S                   step 1: weight 100; run A=2, B=2; serve B
    the same, and the gate passed when its window ended     active B, last good A; serve B; A drains
    the same, Service selects B, 3 s later                  A is removed
    active A, candidate B 2 of 2 ready, C                   step 1: weight 10; run A=2, B=2; serve A
    the same, and the gate failed                           rolled back B; run A=2; serve A; B drains
    active A, candidate B cannot load, S                    rolled back B; run A=2; B is removed
    active A with pods, target B, F                         candidate B; run A=0, B=0; serve A
    active A without pods, candidate B, F                   run A=0, B=2; serve B once it answers
    active A without pods, candidate B cannot load, F       rolled back B; run A=2; serve A
    active A, candidate B, target A                         no candidate; B is removed
    active A, candidate B, target C                         candidate C; B is removed
    active A, candidate B not yet delivered, S or F         run A=2; serve A
    active A, last good Z, order: roll back A               rolled back A; candidate Z, in force once it is ready
    ======================================================  =================================================
    """
    if rolled_back is not None and (
        (rolled_back.generation != wanted.generation or rolled_back.retry != wanted.retry)
        and not names(wanted.rollback, rolled_back.digest)
    ):
        rolled_back = None
    state = _State(refreshed(slots, wanted.target), rolled_back, rollout)
    before = slots.candidate.digest if slots.candidate is not None and rollout and rollout.weight else None
    _obey(wanted, state, now)
    state.slots = marked(wanted, state.slots, seen, now, urgent=state.urgent)
    _judge(wanted, state, seen, now)
    startable, hold = _startable(wanted, state), _hold(wanted, state)
    if startable is not None and (hold is None or wanted.delivered is not None):
        state.start(startable, len(wanted.steps), now)
        state.slots = marked(wanted, state.slots, seen, now, urgent=False)
    slots, candidate, urgent = state.slots, state.slots.candidate, state.urgent
    # A Deployment of it that a pass left which was cut off is no start either: held, nothing is started.
    waiting = undelivered(wanted, slots, seen, urgent=urgent) or (
        startable is not None and hold is not None and candidate is not None
    )
    run = to_run(wanted, slots, seen, waiting=waiting)
    serve = to_serve(wanted, slots, seen, state.at)
    going = {key for key, version in seen.items() if version.deployed} - {slot.digest for slot, _ in run}
    receives = receiving(slots, state.rolled_back, selected, now)
    if before is not None and (candidate is None or candidate.digest != before):
        receives.add(before)  # by what the gateway was told last
    draining = going & receives if serve is not None else set()
    return Step(
        slots=slots,
        rolled_back=state.rolled_back,
        run=run,
        serve=serve,
        remove=frozenset(going - draining),
        draining=frozenset(draining),
        held=hold if startable is not None or waiting else None,
        waiting=waiting,
        rollout=state.at,
        closed=_closed(wanted, slots, seen),
        inconclusive=state.inconclusive,
        due=state.due,
        deadline=None if waiting or wanted.paused else _deadline(wanted, state),
    )


def _obey(wanted: Wanted, state: _State, now: datetime) -> None:
    """Carry out the order that a version is not to serve; a first version, beside which there is none, is let be."""
    active, candidate, last_good = state.slots.active, state.slots.candidate, state.slots.last_good
    if not wanted.rollback or active is None:
        return
    told = "the annotation edgemodel.io/rollback names it"
    if candidate is not None and names(wanted.rollback, candidate.digest):
        state.drop(taken_back(candidate, Reason.MANUAL, told, wanted, now, state.rolled_back))
    elif (
        names(wanted.rollback, active.digest)
        and last_good is not None
        and last_good.digest not in wanted.refused
        and not (state.urgent and candidate is not None)
    ):
        state.rolled_back = taken_back(active, Reason.MANUAL, told, wanted, now, state.rolled_back)
        state.start(last_good, 1, now)


def _judge(wanted: Wanted, state: _State, seen: Mapping[str, Seen], now: datetime) -> None:
    """Promote the candidate, take it back, drop it, or let it go on."""
    candidate = state.slots.candidate
    if candidate is None:
        state.at = None
        return
    if state.at is None:
        state.at = RolloutStatus(steps=len(wanted.steps), started_at=candidate.since)
    version = seen.get(candidate.digest, NOT_SEEN)
    if state.slots.active is None:
        _judge_first(wanted, state, candidate, version, seen, now)
        return
    urgent = state.urgent
    superseded = wanted.target is not None and wanted.target.digest != candidate.digest and not urgent
    if candidate.digest in wanted.refused or superseded:
        state.drop()
    elif undelivered(wanted, state.slots, seen, urgent=urgent):
        state.at = RolloutStatus(steps=len(wanted.steps), started_at=state.at.started_at)
    elif held_back(wanted, state.slots, seen, urgent=urgent):
        state.drop()  # starts afresh, with a full deadline, when what holds it ends
    elif version.failure is not None and version.failure.fatal:
        failure = version.failure
        state.drop(taken_back(candidate, failure.reason, failure.message, wanted, now, state.rolled_back))
    else:
        _move(wanted, state, candidate, version, seen, now)


def _move(
    wanted: Wanted,
    state: _State,
    candidate: Slot,
    version: Seen,
    seen: Mapping[str, Seen],
    now: datetime,
) -> None:
    """Let the candidate go on by its steps, or at once if it is to."""
    active = state.slots.active
    assert active is not None
    assert state.at is not None
    rules = wanted
    if state.urgent or wanted.replicas == 0 or names(wanted.promote, candidate.digest):
        rules = replace(
            wanted,
            steps=ALL_AT_ONCE,
            on_no_data="Proceed",
            golden="Ignore",
            paused=wanted.paused and not state.urgent,
        )
        version = replace(version, golden="Pass", gate="Pass")
    stopped = wanted.strategy == "StopFirst" and seen.get(active.digest, NOT_SEEN).ready == 0
    moved = move(rules, state.at, version, now, open_early=stopped)
    state.at, state.inconclusive, state.due = moved.at, moved.inconclusive, moved.due
    if moved.end == "Promoted":
        state.promote(now)
    elif moved.end == "TakenBack":
        state.drop(taken_back(candidate, moved.reason, moved.why, wanted, now, state.rolled_back))
    else:
        deadline = None if wanted.paused else _deadline(wanted, state)
        if deadline is not None and now.timestamp() >= deadline:
            late = _late(wanted, version)
            state.drop(
                taken_back(candidate, Reason.PROGRESS_DEADLINE_EXCEEDED, late, wanted, now, state.rolled_back)
            )


def _judge_first(
    wanted: Wanted,
    state: _State,
    candidate: Slot,
    version: Seen,
    seen: Mapping[str, Seen],
    now: datetime,
) -> None:
    """Let a first version serve once a pod of it answers, and not wrongly: there is nothing to go back to."""
    assert state.at is not None
    refused = candidate.digest in wanted.refused
    if wanted.replicas == 0 and not refused and not undelivered(wanted, state.slots, seen, urgent=False):
        state.promote(now)
        return
    if version.ready > 0 and (version.golden == "Pass" or not refused):
        rules = replace(
            wanted, steps=((100, wanted.steps[-1][1]),), on_no_data="Proceed", paused=False, replicas=1
        )
        moved = move(rules, state.at, version, now, open_early=True)
        if moved.at.step > 0:
            state.promote(now)
            return
        state.at, state.inconclusive, state.due = moved.at, moved.inconclusive, moved.due
    if refused or (wanted.target is not None and wanted.target.digest != candidate.digest):
        state.drop()


def _startable(wanted: Wanted, state: _State) -> Slot | None:
    """Return the target if it should be started, were there nothing to hold it."""
    target, active = wanted.target, state.slots.active
    if target is None or state.slots.candidate is not None or target.digest in wanted.refused:
        return None
    if active is None:
        return target
    if active.digest == target.digest or names(wanted.rollback, target.digest):
        return None
    return None if target.digest in banned(state.rolled_back) else target


def _hold(wanted: Wanted, state: _State) -> Hold | None:
    """Return what holds the start of a version now."""
    if state.urgent and state.slots.candidate is not None:
        return None
    if wanted.paused:
        return PAUSED
    return wanted.hold if state.slots.active is not None else None


def _closed(wanted: Wanted, slots: Slots, seen: Mapping[str, Seen]) -> bool:
    """Say whether a first version must take no requests yet: nobody knows how it does on golden samples."""
    if slots.active is not None or slots.candidate is None or wanted.golden == "Ignore":
        return False
    version = seen.get(slots.candidate.digest)
    return version is None or version.golden != "Pass"


def _deadline(wanted: Wanted, state: _State) -> float | None:
    return overdue_at(state.slots.candidate, wanted.progress_deadline, state.at)


def overdue_at(candidate: Slot | None, deadline: float, at: RolloutStatus | None = None) -> float | None:
    """Return the POSIX time at which a candidate that has a Deployment is given up, None for never.

    While it takes requests with all its pods ready, that is never.
    """
    if candidate is None or deadline <= 0:
        return None
    began = candidate.delivered or candidate.since
    if at is not None and at.step > 0:
        began = at.not_ready_since
    return began.timestamp() + deadline if began is not None else None


def _late(wanted: Wanted, version: Seen) -> str:
    """Say what a candidate lacks that is given up at its deadline."""
    after = f"after {wanted.progress_deadline:g} s"
    if version.ready >= wanted.replicas:
        return f"it was not known {after} how its pods do on golden samples"
    found = f"{version.ready} of {wanted.replicas} pods were ready {after}"
    failure = version.failure
    if failure is not None:
        found = f"{found}; {failure.reason}: {failure.message}"
        if failure.reason is Reason.UNSCHEDULABLE and wanted.strategy != "StopFirst":
            found = f"{found} ({wanted.strategy}: {SURGE_NEEDS_ROOM})"
    return found
