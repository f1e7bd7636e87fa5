"""How many steps a second the rollout's machine takes on one core, over the states that rollouts go through.

No peer: nothing else decides from these facts. The goal is what makes exploring them state by state cheap.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from benchmarks.figures import Report
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import RolledBack, Slot, Slots
from edgemodel.rollout.facts import Seen, Wanted
from edgemodel.rollout.machine import step

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS, STEPS = 15, 200
STATES = {
    "at_rest": "a version serves, nothing is wanted",
    "starting": "a candidate's pods are not all ready",
    "canary": "a candidate has a tenth of the requests",
    "promoting": "a candidate takes over in this step",
    "rolling_back": "a candidate is taken back in this step",
    "draining": "the version before is being drained",
}


def _slot(letter: str) -> Slot:
    digest = f"sha256:{letter * 64}"
    return Slot(digest=digest, image=f"example.org/m@{digest}", version=letter, since=NOW, tries=1)


def cases() -> dict[str, tuple[object, ...]]:
    """Return the arguments of ``step`` for each state."""
    old, new = _slot("a"), _slot("b")
    both = Slots(active=old, candidate=new)
    up, later = Seen(True, 2, 2, 2), NOW + timedelta(seconds=90)
    wanted = Wanted(
        target=new,
        replicas=2,
        generation=1,
        strategy="Canary",
        steps=((10, 60.0), (50, 60.0), (100, 30.0)),
        on_no_data="Hold",
        golden="IfPresent",
    )
    first = RolloutStatus(step=1, steps=3, weight=10, started_at=NOW, step_since=NOW)
    last = first.model_copy(update={"step": 3, "weight": 100})
    seen = {old.digest: up, new.digest: replace(up, gate="Pass", watched=60.0)}
    failing = {old.digest: up, new.digest: replace(up, gate="Fail", why="errors: 5 %")}
    half = {old.digest: up, new.digest: Seen(True, 2, 2, 1)}
    banned = RolledBack(digest=_slot("c").digest, reason="GateFailed", at=NOW, generation=1)
    rest = replace(wanted, target=old)
    return {
        "at_rest": (rest, Slots(active=old), banned, {old.digest: up}, old.digest, later, None),
        "starting": (wanted, both, None, half, old.digest, later, RolloutStatus(steps=3, started_at=NOW)),
        "canary": (wanted, both, None, seen, old.digest, NOW + timedelta(seconds=30), first),
        "promoting": (wanted, both, None, seen, new.digest, later, last),
        "rolling_back": (wanted, both, None, failing, old.digest, later, first),
        "draining": (wanted, Slots(active=new, last_good=old), None, seen, new.digest, NOW, None),
    }


def rate(arguments: tuple[object, ...]) -> float:
    """Return steps per second of processor time, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(STEPS):
            step(*arguments)  # type: ignore[arg-type]
        best = min(best, (time.process_time() - began) / STEPS)
    return 1 / best


def run() -> bool:
    """Run the benchmark; True when the goal is met."""
    report = Report("machine")
    rates = {name: rate(arguments) for name, arguments in cases().items()}
    report.add("steps_a_second", len(rates) / sum(1 / one for one in rates.values()), "steps/s", ">=", 20_000)
    for name, value in rates.items():
        report.add(f"steps_a_second_{name}", value, "steps/s")
    report.notes["states"] = STATES
    return report.finish()
