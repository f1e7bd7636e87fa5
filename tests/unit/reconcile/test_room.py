"""Memory for both versions at once: what is counted, and what it does to a rollout."""

from typing import Any

import pytest

from edgemodel.reconcile.room import requested
from tests.unit.reconcile.world import World, judged

MIB = 1 << 20


def site(*memory: str | None, request: str = "600Mi", **spec: Any) -> World:
    """Return a world with nodes of so much memory, in which version A serves from its pods' own volumes."""
    world = World("A", delivery="Pod", server={"resources": {"requests": {"memory": request}}}, **spec)
    for number, has in enumerate(memory):
        world.add_node(f"n{number}").allocatable = has
    return world.settle().ready("A").settle()


def update(world: World) -> World:
    world.target = judged("B")
    return world.settle()


@pytest.mark.parametrize(
    ("memory", "replicas", "fits"),
    [
        (("2Gi",), 1, True),
        (("1Gi",), 1, False),
        (("1200Mi",), 1, True),
        (("1199Mi",), 1, False),
        (("700Mi", "700Mi"), 1, True),
        (("1Gi", "1Gi"), 2, False),
        ((None,), 1, True),
        (("1Gi", None), 1, True),
        (("plenty",), 1, True),
    ],
)
@pytest.mark.parametrize("strategy", ["Surge", "StopFirst"])
def test_a_new_version_starts_only_where_there_is_room_for_both(
    memory: tuple[str | None, ...], replicas: int, fits: bool, strategy: str
) -> None:
    world = update(site(*memory, replicas=replicas, rollout={"strategy": strategy}))
    started = "B" in world.sizes()
    assert started is (fits or strategy == "StopFirst")
    if not started:
        assert world.condition("Progressing") == ("False", "InsufficientMemory")
        assert world.condition("Ready") == ("True", "Serving")
        assert "StopFirst" in world.message("Progressing")
        assert "600 MiB each" in world.message("Progressing")
        assert world.last.requeue_after == 30


def test_a_version_that_waits_for_memory_is_not_given_up_and_starts_when_there_is_some() -> None:
    world = update(site("1Gi")).later(10**6).settle()
    assert world.condition("RolledBack") == ("False", "None")
    world.nodes["n0"].allocatable = "4Gi"
    world.settle()
    assert world.sizes() == {"A": 1, "B": 1}


def test_memory_that_its_own_pods_take_is_not_counted_against_a_version_that_runs() -> None:
    world = update(site("1300Mi"))
    world.nodes["n0"].allocatable = "1Gi"
    world.settle()
    assert world.sizes() == {"A": 1, "B": 1}


@pytest.mark.parametrize("why", ["selector", "not ready"])
def test_nodes_that_take_no_pods_of_the_model_have_no_room_for_it(why: str) -> None:
    selector = {"nodeSelector": {"kubernetes.io/hostname": "n0"}} if why == "selector" else {}
    world = site("1Gi", "8Gi", podTemplate=selector)
    world.nodes["n1"].ready = why == "selector"
    for pod in world.pods.values():
        pod["spec"]["nodeName"] = "n0"
    assert update(world).condition("Progressing") == ("False", "InsufficientMemory")


def test_a_first_version_is_not_held_for_memory() -> None:
    world = World("A", server={"resources": {"requests": {"memory": "9Gi"}}}, delivery="Pod")
    world.add_node("n0").allocatable = "1Gi"
    assert world.settle().sizes() == {"A": 1}


@pytest.mark.parametrize(
    ("containers", "before", "expected"),
    [
        ([{"requests": {"memory": "1Mi"}}, {"requests": {"memory": "2Mi"}}], [], 3 * MIB),
        ([{"requests": {"memory": "1Mi"}}], [{"requests": {"memory": "5Mi"}}], 5 * MIB),
        ([{"limits": {"memory": "4Mi"}}], [{}], 4 * MIB),
        ([{"requests": {"cpu": "1"}}], [], 0),
        ([{"requests": {"memory": "much"}}], [], None),
    ],
)
def test_what_a_pod_asks_for(containers: list[Any], before: list[Any], expected: int | None) -> None:
    spec = {
        "containers": [{"resources": one} for one in containers],
        "initContainers": [{"resources": one} for one in before],
    }
    assert requested(spec) == expected
