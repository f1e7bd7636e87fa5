"""A rollout that is told step by step."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from edgemodel.api.conditions import Reason
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import RolledBack, Slots
from edgemodel.rollout.facts import Failure, Hold, Seen, Wanted
from edgemodel.rollout.machine import Step, step
from tests.unit.rollout.versions import NOW, A, digest, slot, up

SURGE = Wanted(
    target=slot("b"), replicas=2, generation=1, steps=((100, 30.0),), golden="IfPresent", on_no_data="Proceed"
)
CANARY = replace(SURGE, strategy="Canary", steps=((10, 60.0), (50, 60.0), (100, 30.0)), on_no_data="Hold")
STOP_FIRST = replace(SURGE, strategy="StopFirst")
CRASHED = Failure(Reason.SERVER_CRASHED, "boom", fatal=True)
MEMORY = Hold(Reason.INSUFFICIENT_MEMORY, "no memory for both")


class Rollout:
    """A rollout from A to B, step by step; pods are ready unless told otherwise."""

    def __init__(self, wanted: Wanted, *, active: bool = True) -> None:
        self.wanted = wanted
        self.slots = Slots(active=A if active else None)
        self.at: RolloutStatus | None = None
        self.banned: RolledBack | None = None
        self.now = NOW
        self.active = up() if wanted.strategy != "StopFirst" else up(0, replicas=0)
        self.candidate: Seen | None = None
        self.last: Step | None = None
        self.selected: str | None = digest("a")

    def look(self, after: float = 0, **seen: Any) -> Step:
        """Take a step ``after`` seconds, with a candidate that is as before but for what is given."""
        self.now += timedelta(seconds=after)
        if self.candidate is None and self.slots.candidate is not None:
            self.candidate = replace(up(), golden="Pass", watched=1e9)
        if seen and self.candidate is not None:
            self.candidate = replace(self.candidate, **seen)
        found = {digest("a"): self.active} if self.slots.active or self.slots.last_good else {}
        if self.candidate is not None:
            found[digest("b")] = self.candidate
        taken = step(self.wanted, self.slots, self.banned, found, self.selected, self.now, self.at)
        self.slots, self.banned, self.at, self.last = taken.slots, taken.rolled_back, taken.rollout, taken
        return taken

    @property
    def stand(self) -> str:
        """Where it stands, in few words."""
        assert self.last is not None
        slots, at = self.slots, self.at
        words = [f"active {slots.active.version}"] if slots.active else []
        if slots.candidate is not None and at is not None:
            words.append(f"{slots.candidate.version} at {at.step}/{at.steps} {at.weight}%")
        words += [f"serve {self.last.serve.version}"] if self.last.serve else []
        words += ["closed"] if self.last.closed else []
        words += ["unknown"] if self.last.inconclusive else []
        words += [f"held {self.last.held.reason}"] if self.last.held else []
        words += [f"back {self.banned.digest[7]} {self.banned.reason}"] if self.banned else []
        return ", ".join(words)


def begun(wanted: Wanted, **seen: Any) -> Rollout:
    """Return a rollout whose candidate has just got its first requests."""
    rollout = Rollout(wanted)
    rollout.look()
    rollout.look(5, **seen)
    return rollout
