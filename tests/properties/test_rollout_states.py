"""Every state that a rollout can get into within so many events is visited, and each keeps what the machine promises.

Breadth first from a version that serves and another that is wanted: all orders of what may happen to them, an operator that
dies between any two of its writes included; states that differ in nothing the machine looks at are visited once. From the
last ones on the world is left in peace, and must come to rest.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from edgemodel.rollout.facts import Wanted
from tests.properties.test_rollout import BROKEN, DIGESTS, HOLD, TARGETS, World, happen, serving

A, B, C = DIGESTS[:3]
STATES = 4_000
"""Visited for each strategy; a run has some ten times as many steps."""
TIMES = (1, 31, 601)


def events(world: World) -> Iterator[Callable[[World], None]]:
    """Yield everything that may happen next."""
    for writes in (0, 1, 2, 3):
        yield lambda world, writes=writes: happen(world, "turn", writes)
    for seconds in TIMES:
        yield lambda world, seconds=seconds: happen(world, "later", seconds)
    for digest in (A, B):
        pods = world.versions[digest]
        if pods.ready < pods.up:
            yield lambda world, digest=digest: happen(world, "all ready", digest)
        if pods.ready:
            yield lambda world, digest=digest: happen(world, "unready", digest)
        if pods.going:
            yield lambda world, digest=digest: happen(world, "gone", digest)
    tried = world.versions[B]
    if tried.up and tried.failure is None:
        yield lambda world: happen(world, "broken", B)
    for verdict in ("Pass", "Fail"):
        if tried.ready and tried.gate != verdict:
            yield lambda world, verdict=verdict: happen(world, "gate", (B, verdict))
        if tried.ready and tried.golden != verdict:
            yield lambda world, verdict=verdict: happen(world, "golden", (B, verdict))
    for target in (TARGETS[0], TARGETS[1], TARGETS[2]):
        if world.wanted.target != target:
            yield lambda world, target=target: happen(world, "target", target)
    wanted = world.wanted
    yield lambda world: order(world, paused=not wanted.paused)
    yield lambda world: order(world, hold=None if wanted.hold else HOLD)
    yield lambda world: order(world, promote="" if wanted.promote else B)
    yield lambda world: order(world, rollback="" if wanted.rollback else B)
    yield lambda world: order(world, retry="x" if not wanted.retry else "")


def order(world: World, **change: object) -> None:
    """Change what is wanted, in a way that leaves the generation alone."""
    world.wanted = replace(world.wanted, **change)  # type: ignore[arg-type]


def key(world: World) -> object:
    """Return all that the machine, or the world's next turn, looks at; of times how long ago they are, up to the longest."""

    def ago(moment: datetime | None) -> int | None:
        return None if moment is None else min(int((world.now - moment).total_seconds()), 1000)

    slots, at, banned, wanted = world.slots, world.at, world.rolled_back, world.wanted
    return (
        slots.active and (slots.active.digest, min(ago(slots.active.since) or 0, 4)),
        slots.candidate and (slots.candidate.digest, ago(slots.candidate.since)),
        slots.last_good and slots.last_good.digest,
        at
        and (at.step, at.weight, ago(at.step_since), ago(at.not_ready_since), min(at.not_ready_seconds, 100)),
        banned and (banned.digest, banned.reason, banned.retry),
        world.selected,
        tuple(
            (
                pods.deployed,
                pods.replicas,
                pods.up,
                pods.ready,
                pods.going,
                pods.failure,
                pods.golden,
                pods.gate,
            )
            for pods in world.versions.values()
        ),
        (wanted.target and wanted.target.digest, wanted.paused, wanted.hold, wanted.promote, wanted.rollback),
        wanted.retry,
    )


RULES = {
    "Surge": {"strategy": "Surge", "steps": ((100, 30.0),), "on_no_data": "Proceed"},
    "StopFirst": {"strategy": "StopFirst", "steps": ((100, 30.0),), "on_no_data": "Proceed"},
    "Canary": {"strategy": "Canary", "steps": ((10, 30.0), (100, 30.0)), "on_no_data": "Hold"},
    "Canary, cautious": {"strategy": "Canary", "steps": ((10, 30.0), (100, 30.0)), "on_no_data": "RollBack"},
}


def begin(rules: dict[str, object]) -> World:
    """Return a world in which A serves with one pod and B is wanted."""
    world = serving()
    world.wanted = replace(world.wanted, replicas=1, target=TARGETS[1], **rules)  # type: ignore[arg-type]
    for pods in world.versions.values():
        pods.going, pods.golden = 0, "Inconclusive"
    for _ in range(3):
        world.now += timedelta(seconds=5)
        world.turn()
    return world


@pytest.mark.timeout(120)
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
def test_every_state_within_reach_keeps_every_promise(rules: dict[str, object]) -> None:
    first = begin(rules)
    seen = {key(first)}
    level, steps, depth = [first], 0, 0
    while level and len(seen) < STATES:
        depth, following = depth + 1, []
        for world in level:
            for event in events(world):
                after = world.copy()
                event(after)
                after.turn(0)  # whatever happened, the next step must do right
                steps += 1
                found = key(after)
                if found not in seen:
                    seen.add(found)
                    following.append(after)
        level = following
    assert depth >= 3
    for world in level[:: max(1, len(level) // 100)]:
        in_peace(world)


def in_peace(world: World) -> None:
    """Leave the world alone; it must come to rest, and then to say the same for ever."""
    wanted: Wanted = world.wanted
    quiet = 0
    for _ in range(60):
        world.now += timedelta(seconds=70)
        for pods in world.versions.values():
            pods.going = 0
        before = (world.slots, world.rolled_back, world.selected, world.at)
        taken = world.turn()
        same = before == (world.slots, world.rolled_back, world.selected, world.at)
        quiet = quiet + 1 if same and not taken.remove | taken.draining else 0
        if quiet > 9:
            return
    raise AssertionError(f"sixty passes over a quiet world and still something to do: {wanted}")


def test_a_version_that_was_taken_back_comes_again_only_if_that_is_forgotten() -> None:
    """A check of the worlds above: a ban is what keeps it away, and nothing else does."""
    world = begin(RULES["Surge"])
    happen(world, "broken", B)
    world.turn()
    assert world.rolled_back is not None
    assert world.rolled_back.digest == B
    assert BROKEN.fatal
    tried = world.copy()
    tried.turn()
    assert tried.slots.candidate is None
    tried.rolled_back = None
    tried.turn()
    assert tried.slots.candidate is not None
