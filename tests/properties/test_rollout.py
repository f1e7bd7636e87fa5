"""Whatever happens to a rollout, in whatever order: what the machine promises holds, and every run comes to rest.

The world around the machine is a Service, Deployments whose pods come, answer, fail and go, and an operator that may die
between any two of its writes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel.api.conditions import Reason
from edgemodel.api.v1alpha1 import RolledBack, Slot, Slots
from edgemodel.rollout.facts import Failure, Seen, Wanted
from edgemodel.rollout.machine import Step, step

START = datetime(2026, 1, 1, tzinfo=UTC)
DIGESTS = [f"sha256:{letter * 64}" for letter in "abcd"]
TARGETS = [Slot(digest=digest, image=f"example.org/m@{digest}", version=digest[7]) for digest in DIGESTS]
BROKEN = Failure(Reason.MODEL_LOAD_FAILED, "no", fatal=True)
WAITING = Failure(Reason.IMAGE_PULL_FAILED, "not yet", fatal=False)


@dataclass
class Pods:
    """The Deployment of one version and its pods."""

    deployed: bool = False
    replicas: int = 0
    up: int = 0
    ready: int = 0
    going: int = 0
    failure: Failure | None = None

    def follow(self) -> None:
        """Do what the Deployment controller does: make pods, or let the unready ones go first."""
        wanted = self.replicas if self.deployed else 0
        if self.up > wanted:
            self.going += self.up - wanted
        self.up = wanted
        self.ready = min(self.ready, wanted)
        if not self.deployed:
            self.failure = None

    def seen(self) -> Seen:
        return Seen(self.deployed, self.replicas, self.up + self.going, self.ready, self.failure)


@dataclass
class World:
    """Everything there is."""

    wanted: Wanted = field(default_factory=lambda: Wanted(target=None, replicas=2, generation=1))
    slots: Slots = field(default_factory=Slots)
    rolled_back: RolledBack | None = None
    versions: dict[str, Pods] = field(default_factory=lambda: {digest: Pods() for digest in DIGESTS})
    selected: str | None = None
    now: datetime = START

    def step(self) -> Step:
        seen = {
            digest: pods.seen()
            for digest, pods in self.versions.items()
            if pods.deployed or pods.up + pods.going > 0
        }
        return step(self.wanted, self.slots, self.rolled_back, seen, self.selected, self.now)

    def turn(self, writes: int = 3) -> Step:
        """Make one pass, of which only the first ``writes`` of three writes are carried out."""
        taken = self.step()
        check(self, taken)
        if writes >= 1:
            for slot, replicas in taken.run:
                pods = self.versions[slot.digest]
                pods.deployed, pods.replicas = True, replicas
            self.selected = taken.serve.digest if taken.serve else None
        if writes >= 2:
            for digest in taken.remove:
                self.versions[digest].deployed = False
        if writes >= 3:
            self.slots, self.rolled_back = taken.slots, taken.rolled_back
        for pods in self.versions.values():
            pods.follow()
        return taken


def check(world: World, taken: Step) -> None:
    """Say what must hold of every step, whatever the world is like."""
    before, after, wanted = world.slots, taken.slots, world.wanted
    sizes = {slot.digest: replicas for slot, replicas in taken.run}
    assert len(sizes) == len(taken.run) <= 2
    assert set(sizes) <= {slot.digest for slot in (after.active, after.candidate) if slot is not None}
    if after.candidate is not None:
        assert after.active is None or after.active.digest != after.candidate.digest
        started = before.candidate is None or before.candidate.digest != after.candidate.digest
        if started:
            assert not wanted.paused or taken.waiting
            assert after.candidate.digest not in wanted.refused
            assert wanted.target is not None
            assert after.candidate.digest == wanted.target.digest
        banned = taken.rolled_back
        assert banned is None or after.active is None or banned.digest != after.candidate.digest
    if before.active is not None:
        assert after.active is not None
        promoted = after.active.digest != before.active.digest
        if promoted:
            assert not wanted.paused
            assert world.versions[after.active.digest].ready >= wanted.replicas
        elif wanted.strategy == "Surge" and before.active.digest not in wanted.refused:
            assert sizes[before.active.digest] == wanted.replicas
    for digest in wanted.refused & set(sizes):
        assert digest != (after.candidate.digest if after.candidate else None)
        pods = world.versions[digest]
        if before.active is not None:
            assert sizes[digest] <= pods.replicas
    if wanted.delivered is not None and after.candidate is not None:
        fresh = after.candidate.digest
        had = before.candidate.delivered if before.candidate and before.candidate.digest == fresh else None
        if fresh not in wanted.delivered and had is None and not world.versions[fresh].deployed:
            # No pod of a candidate that no node has, and the version that serves is not stopped for it.
            assert taken.waiting
            assert fresh not in sizes
            kept = before.active
            if kept is not None and kept.digest == after.active.digest and kept.digest not in wanted.refused:
                assert sizes[kept.digest] == wanted.replicas
    if taken.waiting:
        assert wanted.delivered is not None
        assert after.candidate is not None
    # Nothing that receives requests is taken away, unless nothing is left that may run at all.
    assert world.selected not in taken.remove or taken.serve is None


DIGEST = st.sampled_from(DIGESTS)
EVENTS = st.one_of(
    st.tuples(st.just("target"), st.sampled_from([*TARGETS, None])),
    st.tuples(st.just("replicas"), st.integers(0, 3)),
    st.tuples(st.just("strategy"), st.sampled_from(["Surge", "StopFirst"])),
    st.tuples(st.just("paused"), st.booleans()),
    st.tuples(st.just("retry"), st.sampled_from(["", "x"])),
    st.tuples(st.just("refused"), st.frozensets(DIGEST, max_size=2)),
    st.tuples(st.just("delivered"), st.none() | st.frozensets(DIGEST)),
    st.tuples(st.just("delivered"), st.frozensets(DIGEST)),
    st.tuples(st.just("ready"), DIGEST),
    st.tuples(st.just("all ready"), DIGEST),
    st.tuples(st.just("unready"), DIGEST),
    st.tuples(st.just("broken"), DIGEST),
    st.tuples(st.just("waiting"), DIGEST),
    st.tuples(st.just("gone"), DIGEST),
    st.tuples(st.just("deleted"), DIGEST),
    st.tuples(st.just("later"), st.integers(1, 700)),
    st.tuples(st.just("turn"), st.integers(0, 3)),
    st.tuples(st.just("turn"), st.just(3)),
)


def happen(world: World, kind: str, value: object) -> None:
    """Let one thing happen."""
    pods = world.versions.get(str(value), Pods())
    if kind == "turn":
        assert isinstance(value, int)
        world.turn(value)
    elif kind == "later":
        assert isinstance(value, int)
        world.now += timedelta(seconds=value)
    elif kind == "ready":
        pods.ready, pods.failure = min(pods.ready + 1, pods.up), None
    elif kind == "all ready":
        pods.ready, pods.failure = pods.up, None
    elif kind == "unready":
        pods.ready = max(0, pods.ready - 1)
    elif kind in ("broken", "waiting"):
        pods.ready = min(pods.ready, max(0, pods.up - 1))
        pods.failure = (BROKEN if kind == "broken" else WAITING) if pods.up else None
    elif kind == "gone":
        pods.going = 0
    elif kind == "deleted":
        pods.deployed = False
        pods.follow()
    else:
        change = {kind: value}
        if kind == "target" and value is not None:
            assert isinstance(value, Slot)
            if value.digest in world.wanted.refused:
                change = {"target": None}
        if kind == "refused" and world.wanted.target is not None:
            assert isinstance(value, frozenset)
            if world.wanted.target.digest in value:
                change["target"] = None
        if kind in ("replicas", "strategy", "paused"):
            change["generation"] = world.wanted.generation + 1
        world.wanted = replace(world.wanted, **change)  # type: ignore[arg-type]


def serving() -> World:
    """Return a world in which the first version serves, so that random events get further."""
    world = World()
    for kind, value in (
        ("target", TARGETS[0]),
        ("turn", 3),
        ("all ready", DIGESTS[0]),
        ("turn", 3),
        ("turn", 3),
    ):
        happen(world, kind, value)
    assert world.slots.active is not None
    return world


WORLDS = st.sampled_from([World, serving])


@given(WORLDS, st.lists(EVENTS, min_size=10, max_size=80))
@settings(max_examples=600, deadline=None)
def test_every_promise_holds_and_every_run_comes_to_rest(
    begin: Callable[[], World], events: list[tuple[str, object]]
) -> None:
    world = begin()
    for kind, value in events:
        happen(world, kind, value)
    for _ in range(12):
        world.now += timedelta(seconds=5)
        for pods in world.versions.values():
            pods.going = 0
        before = (world.slots, world.rolled_back, world.selected)
        taken = world.turn()
        if before == (world.slots, world.rolled_back, world.selected) and not taken.remove | taken.draining:
            break
    else:
        raise AssertionError("twelve passes over a quiet world and still something to do")
    assert world.turn() == taken


@given(WORLDS, st.lists(EVENTS, min_size=10, max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_healthy_target_always_gets_to_serve(
    begin: Callable[[], World], events: list[tuple[str, object]]
) -> None:
    world = begin()
    for kind, value in events:
        happen(world, kind, value)
    by_nodes = world.wanted.delivered is not None
    wanted = replace(
        world.wanted,
        target=TARGETS[3],
        paused=False,
        refused=frozenset(),
        generation=10**6,
        delivered=frozenset(DIGESTS) if by_nodes else None,
    )
    world.wanted = wanted
    for turn in range(16):
        if turn == 4:
            # It may have been broken, or late, until now: whoever mends it asks for another try.
            world.wanted = replace(wanted, generation=10**6 + 1)
        world.now += timedelta(seconds=5)
        world.turn()
        for pods in world.versions.values():
            pods.going, pods.ready, pods.failure = 0, pods.up, None
    assert world.slots.active is not None
    assert world.slots.active.digest == world.selected == DIGESTS[3]
    assert world.slots.candidate is None
    assert [digest for digest, pods in world.versions.items() if pods.deployed] == [DIGESTS[3]]


def test_a_step_costs_less_than_50_microseconds() -> None:
    wanted = Wanted(target=TARGETS[1], replicas=2, generation=1)
    slots = Slots(active=TARGETS[0], candidate=TARGETS[1].model_copy(update={"since": START}))
    seen = {DIGESTS[0]: Seen(True, 2, 2, 2), DIGESTS[1]: Seen(True, 2, 2, 1)}
    best = float("inf")
    for _ in range(20):
        began = time.process_time()
        for _ in range(500):
            step(wanted, slots, None, seen, DIGESTS[0], START)
        best = min(best, (time.process_time() - began) / 500)
    assert best < 1 / 20_000
