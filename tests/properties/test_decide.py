"""Whatever happens to a model: no pass fails, every world comes to rest, and what conditions say is true."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel.api.conditions import ConditionType, Reason
from edgemodel.reconcile.decision import Decision
from edgemodel.reconcile.nodes import delivered, mounts, read_nodes
from edgemodel.reconcile.observed import Judged, Unresolved
from tests.unit.reconcile.world import (
    DIGESTS,
    DOWNLOADING,
    LOADING,
    READY,
    UNSCHEDULABLE,
    World,
    fetch_ended,
    judged,
    server_ended,
)

REFUSAL = (Reason.KEY_REVOKED, "the key was revoked")
TARGETS: list[Judged | Unresolved] = [
    *(judged(letter) for letter in "ABC"),
    *(judged(letter, refusal=REFUSAL) for letter in "ABC"),
    judged("A", stale="it has expired"),
    Unresolved(Reason.RECONCILING, "being looked up"),
    Unresolved(Reason.REGISTRY_UNREACHABLE, "no answer"),
    Unresolved(Reason.INVALID_SPEC, "not a reference", stalled=True),
]
PODS: list[dict[str, Any]] = [
    *([READY] * 4),
    DOWNLOADING,
    LOADING,
    UNSCHEDULABLE,
    server_ended('{"reason": "ModelLoadFailed", "message": "no"}'),
    server_ended("boom"),
    fetch_ended('{"reason": "RegistryUnreachable", "message": "no"}'),
    fetch_ended('{"reason": "SignatureInvalid", "message": "no"}'),
    {"phase": "Failed", "reason": "Evicted"},
]
LETTERS = st.sampled_from("ABC")
NAMES = st.sampled_from(["n1", "n2"])
Happening = Callable[[World], object]


def target(found: Judged | Unresolved) -> Happening:
    return lambda world: setattr(world, "target", found)


def active(letter: str) -> Happening:
    return lambda world: setattr(world, "active", judged(letter, refusal=REFUSAL))


def pods(letter: str, status: dict[str, Any], count: int | None) -> Happening:
    return lambda world: world.report(letter, status, count)


def edit(spec: dict[str, Any]) -> Happening:
    return lambda world: world.edit(**spec)


def later(seconds: int) -> Happening:
    return lambda world: world.later(seconds)


def lose(kind: str) -> Happening:
    def happen(world: World) -> None:
        world.children = {key: child for key, child in world.children.items() if key[0] != kind}

    return happen


def conflict(names: tuple[str, ...]) -> Happening:
    return lambda world: setattr(world, "conflicts", names)


def join(name: str) -> Happening:
    return lambda world: world.add_node(name)


def hold(name: str, letter: str, state: str, reason: str) -> Happening:
    def happen(world: World) -> None:
        if name in world.nodes:
            since = f"{world.now:%Y-%m-%dT%H:%M:%SZ}"
            world.hold(letter, name, state=state, reason=reason, bytes=5, total=10, since=since)

    return happen


def nodes_change(name: str, what: str) -> Happening:
    def happen(world: World) -> None:
        node = world.nodes.get(name)
        if node is None:
            return
        if what == "silent":
            node.silence(world.now)
        elif what == "back":
            node.silence(world.now + timedelta(days=999))
        elif what == "gone":
            del world.nodes[name]
        elif what == "no agent":
            node.agent = False
        else:
            node.ready = what == "ready"

    return happen


def turn(world: World) -> None:
    """Make a pass; what it starts to mount must be on the nodes, or have been."""
    before, slots = set(world.children), world.model.status.slots
    world.turn()
    known = {
        slot.digest
        for slot in (slots.active, slots.candidate)
        if slot is not None and (slot is slots.active or slot.delivered is not None)
    }
    nodes = read_nodes(world.observe(), (), world.now)
    for key in set(world.children) - before:
        if key[0] == "Deployment" and mounts(world.children[key]):
            label = world.children[key]["metadata"]["labels"]["edgemodel.io/digest"]
            (digest,) = (str(one) for one in DIGESTS.values() if one.short == label)
            assert digest in known or delivered(nodes, digest)


def die(world: World) -> None:
    """Make a pass whose status is lost."""
    status = world.model.status
    world.turn()
    world.model = world.model.model_copy(update={"status": status})


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "delivery": st.sampled_from(["Node", "Pod"]),
        "replicas": st.integers(0, 3),
        "suspend": st.booleans(),
        "rollout": st.fixed_dictionaries(
            {}, optional={"paused": st.booleans(), "strategy": st.sampled_from(["Surge", "StopFirst"])}
        ),
        "modelFile": st.sampled_from(["a.onnx", "b.onnx"]),
    },
)
HAPPENINGS = st.one_of(
    st.just(turn),
    st.just(turn),
    st.just(die),
    st.builds(target, st.sampled_from(TARGETS)),
    st.builds(pods, LETTERS, st.sampled_from(PODS), st.sampled_from([1, None])),
    st.builds(pods, LETTERS, st.just(READY), st.none()),
    st.builds(edit, SPECS),
    st.builds(later, st.integers(1, 900)),
    st.builds(lose, st.sampled_from(["Deployment", "Service", "ConfigMap"])),
    st.builds(conflict, st.sampled_from([(), (), ("Service/detector",)])),
    st.builds(active, LETTERS),
    st.builds(join, NAMES),
    st.builds(
        hold,
        NAMES,
        LETTERS,
        st.sampled_from(["Ready", "Ready", "Ready", "Downloading", "Failed"]),
        st.sampled_from(["", "DiskFull", "WaitingForWindow", "IntegrityFailed"]),
    ),
    st.builds(
        nodes_change, NAMES, st.sampled_from(["silent", "back", "gone", "no agent", "ready", "not ready"])
    ),
)


def check(world: World) -> None:
    """Say what must hold once the world has come to rest."""
    status = world.model.status
    told = {item.type: item for item in status.conditions}
    if not world.model.spec.suspend:
        assert list(told) == list(ConditionType)
        service = world.children.get(("Service", "detector"))
        selected = service["spec"]["selector"]["edgemodel.io/digest"] if service else None
        answering = [
            pod
            for pod in world.pods.values()
            if pod["metadata"]["labels"]["edgemodel.io/digest"] == selected and pod["status"] == READY
        ]
        if not world.conflicts:
            assert (told["Ready"].status == "True") == bool(answering)
        assert status.ready_replicas == len(answering) or world.conflicts
    assert all(item.message and len(item.message) < 4096 for item in status.conditions)
    assert all(item.reason in Reason.__members__.values() for item in status.conditions)
    if told["Ready"].status == "True":
        assert status.ready_replicas > 0
    assert len(world.sizes()) <= 2 or world.model.spec.suspend


@given(st.sampled_from([(), ("n1",), ("n1", "n2")]), st.lists(HAPPENINGS, min_size=5, max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_pass_fails_and_every_world_comes_to_rest_in_truth(
    nodes: tuple[str, ...], happenings: list[Happening]
) -> None:
    world = World("A", replicas=2)
    for name in nodes:
        world.add_node(name)
    for happen in happenings:
        happen(world)
        assert world.last.requeue_after is None or world.last.requeue_after > 0
    world.settle(most=12)
    check(world)
    assert world.decide() == Decision(requeue_after=world.last.requeue_after, evict=world.last.evict)
