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
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import RolledBack, Slot, Slots
from edgemodel.rollout.facts import Failure, Hold, Seen, Wanted, names
from edgemodel.rollout.gate import Verdict
from edgemodel.rollout.machine import Step, step

START = datetime(2026, 1, 1, tzinfo=UTC)
DIGESTS = [f"sha256:{letter * 64}" for letter in "abcd"]
TARGETS = [Slot(digest=digest, image=f"example.org/m@{digest}", version=digest[7]) for digest in DIGESTS]
BROKEN = Failure(Reason.MODEL_LOAD_FAILED, "no", fatal=True)
WANTED = Wanted(target=None, replicas=2, generation=1, steps=((100, 30.0),), golden="IfPresent")
STEPS = [((100, 0.0),), ((100, 30.0),), ((10, 60.0), (100, 30.0)), ((0, 5.0), (1, 0.0), (100, 5.0))]
HOLD = Hold(Reason.INSUFFICIENT_MEMORY, "no memory for both")
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
    golden: Verdict = "Pass"
    gate: Verdict = "Inconclusive"

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
        return Seen(
            self.deployed, self.replicas, self.up + self.going, self.ready, self.failure, self.golden, self.gate,
            watched=1e9,
        )  # fmt: skip


@dataclass
class World:
    """Everything there is."""

    wanted: Wanted = field(default_factory=lambda: WANTED)
    slots: Slots = field(default_factory=Slots)
    rolled_back: RolledBack | None = None
    at: RolloutStatus | None = None
    versions: dict[str, Pods] = field(default_factory=lambda: {digest: Pods() for digest in DIGESTS})
    selected: str | None = None
    now: datetime = START

    def step(self) -> Step:
        seen = {
            digest: pods.seen()
            for digest, pods in self.versions.items()
            if pods.deployed or pods.up + pods.going > 0
        }
        return step(self.wanted, self.slots, self.rolled_back, seen, self.selected, self.now, self.at)

    def turn(self, writes: int = 3) -> Step:
        """Make one pass, of which only the first ``writes`` of three writes are carried out."""
        taken = self.step()
        check(self, taken)
        if writes >= 1:
            for slot, replicas in taken.run:
                pods = self.versions[slot.digest]
                pods.deployed, pods.replicas = True, replicas
            self.selected = taken.serve.digest if taken.serve and not taken.closed else None
        if writes >= 2:
            for digest in taken.remove:
                self.versions[digest].deployed = False
        if writes >= 3:
            before, self.at = self.at, taken.rollout
            self.slots, self.rolled_back = taken.slots, taken.rolled_back
            if before is None or self.at is None or before.step_since != self.at.step_since:
                for pods in self.versions.values():
                    pods.gate = "Inconclusive"  # a step begins to count anew
        for pods in self.versions.values():
            pods.follow()
        return taken

    def copy(self) -> "World":
        """Return a world that goes its own way."""
        return replace(self, versions={digest: replace(pods) for digest, pods in self.versions.items()})


def restoring(slots: Slots, banned: RolledBack | None) -> bool:
    """Tell whether the candidate is what an active version makes way for by order."""
    return slots.active is not None and banned is not None and banned.digest == slots.active.digest


def check(world: World, taken: Step) -> None:
    """Say what must hold of every step, whatever the world is like."""
    before, after, wanted = world.slots, taken.slots, world.wanted
    sizes = {slot.digest: replicas for slot, replicas in taken.run}
    assert len(sizes) == len(taken.run) <= 2
    assert set(sizes) <= {slot.digest for slot in (after.active, after.candidate) if slot is not None}
    ordered = (
        restoring(after, taken.rolled_back)
        or restoring(before, world.rolled_back)
        or (before.active is not None and names(wanted.rollback, before.active.digest))
    )
    if after.candidate is not None:
        assert after.active is None or after.active.digest != after.candidate.digest
        started = before.candidate is None or before.candidate.digest != after.candidate.digest
        if started and not ordered:
            assert not wanted.paused or taken.waiting
            assert wanted.hold is None or after.active is None or taken.waiting
            assert after.candidate.digest not in wanted.refused
            assert wanted.target is not None
            assert after.candidate.digest == wanted.target.digest
        banned = taken.rolled_back
        assert banned is None or after.active is None or banned.digest != after.candidate.digest
        assert after.active is None or not names(wanted.rollback, after.candidate.digest) or ordered
    else:
        assert taken.rollout is None
    check_serving(world, taken, sizes, ordered=ordered)
    check_judgement(world, taken, ordered=ordered)
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


def check_serving(world: World, taken: Step, sizes: dict[str, int], *, ordered: bool) -> None:
    """Say that no step serves with less than the strategy promises."""
    before, after, wanted = world.slots, taken.slots, world.wanted
    if before.active is None:
        return
    assert after.active is not None
    assert taken.serve is not None
    assert not taken.closed
    if after.active.digest != before.active.digest:
        assert ordered or not wanted.paused
        assert world.versions[after.active.digest].ready >= wanted.replicas
    elif wanted.strategy != "StopFirst" and before.active.digest not in wanted.refused:
        assert sizes[before.active.digest] == wanted.replicas
    served, old = world.versions[taken.serve.digest], world.versions[before.active.digest]
    assert served.ready >= min(old.ready, wanted.replicas)
    if after.candidate is not None and taken.serve.digest == after.candidate.digest:
        assert taken.weight == 100
        assert served.ready > 0


def check_judgement(world: World, taken: Step, *, ordered: bool) -> None:
    """Say that nothing bad gets on, nothing unknown against the user's word, and nothing that was taken back at all."""
    before, after, wanted = world.slots, taken.slots, world.wanted
    if taken.weight:
        assert after.candidate is not None
        assert after.active is not None
        assert ordered or names(wanted.promote, after.candidate.digest) or wanted.replicas == 0 or (
            taken.weight in {weight for weight, _ in wanted.steps}
            and (world.versions[after.candidate.digest].golden != "Fail" or not world.versions[after.candidate.digest].up)
        )  # fmt: skip
    if before.active is None or before.candidate is None:
        return
    tried, digest = world.versions[before.candidate.digest], before.candidate.digest
    if not tried.deployed and not tried.up + tried.going:
        return  # nothing of it is there to be judged
    direct = ordered or names(wanted.promote, digest) or wanted.replicas == 0
    goes_on = after.candidate is not None and after.candidate.digest == digest
    if after.active is not None and after.active.digest == digest:
        assert tried.failure is None or not tried.failure.fatal
        assert direct or tried.golden != "Fail"
        assert direct or tried.gate != "Fail" or world.at is None or world.at.step == 0
        if wanted.on_no_data == "Hold" and not direct:
            assert tried.gate == "Pass" or wanted.steps[-1][1] == 0
    elif goes_on and not taken.waiting:
        assert tried.failure is None or not tried.failure.fatal
        assert direct or tried.golden != "Fail"
        if world.at is not None and world.at.step > 0:
            assert direct or tried.gate != "Fail"


DIGEST = st.sampled_from(DIGESTS)
VERDICT = st.sampled_from(["Pass", "Inconclusive", "Fail"])
EVENTS = st.one_of(
    st.tuples(st.just("target"), st.sampled_from([*TARGETS, None])),
    st.tuples(st.just("replicas"), st.integers(0, 3)),
    st.tuples(st.just("strategy"), st.sampled_from(["Surge", "StopFirst", "Canary"])),
    st.tuples(st.just("steps"), st.sampled_from(STEPS)),
    st.tuples(st.just("on_no_data"), st.sampled_from(["Hold", "Proceed", "RollBack"])),
    st.tuples(st.just("hold"), st.sampled_from([None, HOLD])),
    st.tuples(st.just("promote"), st.sampled_from(["", *DIGESTS])),
    st.tuples(st.just("rollback"), st.sampled_from(["", *DIGESTS])),
    st.tuples(st.just("gate"), st.tuples(DIGEST, VERDICT)),
    st.tuples(st.just("golden"), st.tuples(DIGEST, VERDICT)),
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
    elif kind in ("gate", "golden"):
        assert isinstance(value, tuple)
        setattr(world.versions[value[0]], kind, value[1])
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
        if kind in ("replicas", "strategy", "paused", "steps", "on_no_data"):
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
@settings(max_examples=400, deadline=None)
def test_every_promise_holds_and_every_run_comes_to_rest(
    begin: Callable[[], World], events: list[tuple[str, object]]
) -> None:
    world = begin()
    for kind, value in events:
        happen(world, kind, value)
    quiet = 0
    for _ in range(40):
        world.now += timedelta(seconds=70)
        for pods in world.versions.values():
            pods.going = 0
        before = (world.slots, world.rolled_back, world.selected, world.at)
        taken = world.turn()
        same = before == (world.slots, world.rolled_back, world.selected, world.at)
        quiet = quiet + 1 if same and not taken.remove | taken.draining else 0
        if quiet > 9:  # a deadline is nine of these long
            break
    else:
        raise AssertionError("forty passes over a quiet world and still something to do")
    assert world.turn() == taken


@given(WORLDS, st.lists(EVENTS, min_size=10, max_size=60))
@settings(max_examples=200, deadline=None)
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
        hold=None,
        promote="",
        rollback="",
    )
    world.wanted = wanted
    for turn in range(24):
        if turn == 4:
            # It may have been broken, or late, until now: whoever mends it asks for another try.
            world.wanted = replace(wanted, generation=10**6 + 1)
        world.now += timedelta(seconds=60)
        world.turn()
        for pods in world.versions.values():
            pods.going, pods.ready, pods.failure, pods.golden, pods.gate = 0, pods.up, None, "Pass", "Pass"
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
