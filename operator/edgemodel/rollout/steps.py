"""How a candidate's share of the requests grows: one step after the other, each judged before the next one begins.

Every strategy is a list of weights, of which the last is 100. All that is remembered is in ``status.rollout``.

What it promises:

* no request goes to a candidate whose golden samples failed, or are not known yet and could be;
* bad is bad at once, at any step; unknown waits for the step's end and then for ``on_no_data``;
* what looks bad, from requests enough, does not go on for want of proof: that is no want of data;
* a step's time runs only while all the candidate's pods are ready;
* silence counts as such only if it was listened to: an operator that just started does not take it for data that is missing.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from edgemodel.api.conditions import Reason
from edgemodel.api.rollout import RolloutStatus
from edgemodel.rollout.facts import Seen, Wanted

LISTEN_SECONDS = 10.0
"""How long silence must be listened to: on golden samples always, on requests unless the step is shorter."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Where the candidate stands after one look."""

    at: RolloutStatus
    end: Literal["Promoted", "TakenBack"] | None = None
    reason: Reason = Reason.NONE
    why: str = ""
    inconclusive: bool = False
    """It has lasted its time and waits because the gate knows too little."""
    due: float | None = None
    """POSIX time at which time alone moves it on; None if it never does."""


def move(wanted: Wanted, at: RolloutStatus, version: Seen, now: datetime, *, open_early: bool) -> Moved:
    """Look at a candidate that has pods, and move it on as far as it may go.

    Args:
        wanted: its steps and rules.
        at: where it stood.
        version: what was seen of it.
        now: the time.
        open_early: its first ready pod may take requests: nothing else answers.
    """
    at = _clocked(at, version.ready >= wanted.replicas, len(wanted.steps), wanted, now)
    if version.golden == "Fail":
        return Moved(at, "TakenBack", Reason.GOLDEN_SAMPLES_FAILED, version.why)
    if at.step > 0 and version.gate == "Fail":
        return Moved(at, "TakenBack", Reason.GATE_FAILED, version.why)
    if at.step == 0:
        moved = _opened(wanted, at, version, now, open_early=open_early)
        if moved.at.step == 0 or moved.end is not None:
            return moved
        # What the gate said was of the time before.
        at, version = moved.at, replace(version, gate="Inconclusive", suspect=False, watched=0.0)
    while True:
        moved = _judged(wanted, at, version, now)
        if moved.end is not None or moved.at.step == at.step:
            return moved
        at, version = moved.at, replace(version, gate="Inconclusive", suspect=False, watched=0.0)


def elapsed(at: RolloutStatus, now: datetime) -> float:
    """Return for how many seconds the step has lasted, without those in which pods were not ready."""
    if at.step_since is None:
        return 0.0
    until = at.not_ready_since or now
    return (until - at.step_since).total_seconds() - at.not_ready_seconds


def _clocked(at: RolloutStatus, ready: bool, steps: int, wanted: Wanted, now: datetime) -> RolloutStatus:
    """Stop or start the step's clock; fit it to steps that were changed meanwhile."""
    change: dict[str, object] = {}
    if at.steps != steps:
        change["steps"] = steps
    step = min(at.step, steps)
    if step != at.step:
        change["step"] = step
    if step > 0 and at.weight != wanted.steps[step - 1][0]:
        change |= {"weight": wanted.steps[step - 1][0]}
    if step > 0 and not ready and at.not_ready_since is None:
        change["not_ready_since"] = now
    elif ready and at.not_ready_since is not None:
        lost = int((now - at.not_ready_since).total_seconds())
        change |= {"not_ready_since": None, "not_ready_seconds": at.not_ready_seconds + lost}
    if "weight" in change:
        change |= {"step_since": now, "not_ready_seconds": 0}
    return at.model_copy(update=change) if change else at


def _opened(wanted: Wanted, at: RolloutStatus, version: Seen, now: datetime, *, open_early: bool) -> Moved:
    """Give a candidate its first requests, once its pods are ready and their golden samples passed."""
    ready = version.ready >= wanted.replicas
    if not ready and not (open_early and version.ready > 0):
        return Moved(at if at.step_since is None else at.model_copy(update={"step_since": None}))
    if wanted.paused:
        return Moved(at)
    if at.step_since is None:
        at = at.model_copy(update={"step_since": now})
    if version.golden == "Inconclusive":
        waits = LISTEN_SECONDS - min(elapsed(at, now), version.watched)
        if waits > 0:
            return Moved(at, due=now.timestamp() + min(waits, 1.0))
        if wanted.on_no_data == "RollBack":
            why = "its pods did not tell how they did on golden samples"
            return Moved(at, "TakenBack", Reason.GATE_INCONCLUSIVE, why)
        if wanted.golden == "Required" or wanted.on_no_data == "Hold":
            return Moved(at, inconclusive=True)
    return Moved(_at_step(wanted, at, 1, now, ready=ready))


def _judged(wanted: Wanted, at: RolloutStatus, version: Seen, now: datetime) -> Moved:
    """Move on from a step that has lasted its time."""
    _, pause = wanted.steps[at.step - 1]
    left = pause - elapsed(at, now)
    if at.not_ready_since is not None or wanted.paused:
        return Moved(at)
    if left > 0:
        return Moved(at, due=now.timestamp() + left)
    if version.gate != "Pass":
        if wanted.on_no_data == "Hold" or (version.suspect and wanted.on_no_data == "Proceed"):
            return Moved(at, inconclusive=True)
        # Nothing was ever asked of a step that has just begun.
        least = 1.0 if wanted.on_no_data == "RollBack" else 0.0
        unheard = max(min(LISTEN_SECONDS, pause), least) - version.watched
        if unheard > 0:
            return Moved(at, due=now.timestamp() + min(unheard, 1.0))
        if wanted.on_no_data == "RollBack":
            why = version.why or "there was too little to judge it by"
            return Moved(at, "TakenBack", Reason.GATE_INCONCLUSIVE, why)
    if at.step == len(wanted.steps):
        return Moved(at, "Promoted")
    return Moved(_at_step(wanted, at, at.step + 1, now, ready=True))


def _at_step(wanted: Wanted, at: RolloutStatus, step: int, now: datetime, *, ready: bool) -> RolloutStatus:
    return at.model_copy(
        update={
            "step": step,
            "weight": wanted.steps[step - 1][0],
            "step_since": now,
            "not_ready_since": None if ready else now,
            "not_ready_seconds": 0,
            "gate": [],
        }
    )
