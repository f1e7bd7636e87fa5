"""Whole passes after files on a node were altered: which pods go, one sentence a case."""

import pytest

from edgemodel.api.conditions import Reason
from tests.unit.reconcile.fleets import serving
from tests.unit.reconcile.world import World, judged


def made(world: World, *ages: tuple[str, int]) -> list[str]:
    """Say on which node, and in which second, each pod of version A was made; return their names."""
    for pod, (node, second) in zip(world.of("A"), ages, strict=True):
        pod["spec"]["nodeName"] = node
        pod["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{second:02}Z"
    return [pod["metadata"]["name"] for pod in world.of("A")]


@pytest.mark.parametrize("reason", ["IntegrityFailed", "TamperDetected"])
def test_pods_on_altered_files_go_and_those_that_came_since_stay(reason: str) -> None:
    world = serving("n1", "n2", replicas=4)
    first, second, *_ = made(world, ("n1", 0), ("n1", 2), ("n1", 3), ("n2", 0))
    since = "2026-01-01T00:00:02Z"
    world.hold("A", "n1", state="Failed", reason=reason, message="weights.bin changed", since=since).settle()
    assert [(ref.name, ref.uid, ref.node, ref.reason) for ref in world.last.evict] == [
        (first, f"uid-of-{first}", "n1", reason),
        (second, f"uid-of-{second}", "n1", reason),
    ]
    assert world.condition("Degraded") == ("True", "IntegrityFailed")
    assert "weights.bin changed" in world.message("Degraded")
    assert world.told() == ["TamperDetected"]
    world.of("A")[0]["metadata"]["deletionTimestamp"] = since
    assert [ref.name for ref in world.turn().evict] == [second]
    world.hold("A", "n1").settle()
    assert world.last.evict == ()
    assert world.condition("Degraded") != ("True", "IntegrityFailed")


def test_a_refusal_of_what_serves_hides_no_damage() -> None:
    world = serving("n1", "n2", replicas=2)
    made(world, ("n1", 0), ("n2", 0))
    world.target = judged("A", refusal=(Reason.KEY_REVOKED, "key release was revoked"))
    world.hold(
        "A", "n1", state="Failed", reason="IntegrityFailed", message="changed", since="2026-01-01T00:00:02Z"
    ).settle()
    assert world.condition("Degraded") == ("True", "PolicyRefused")
    assert "Its files on n1 were found changed, too." in world.message("Degraded")
    assert [ref.node for ref in world.last.evict] == ["n1"]


def test_pods_on_altered_files_go_though_the_files_are_whole_again() -> None:
    world = serving("n1", replicas=2)
    old, _ = made(world, ("n1", 0), ("n1", 5))
    world.hold("A", kind="Full", reason="Pulled", alteredAt="2026-01-01T00:00:03Z").settle()
    assert [(ref.name, ref.reason) for ref in world.last.evict] == [(old, "IntegrityFailed")]
    assert world.condition("Degraded") == ("True", "IntegrityFailed")
    assert world.told() == ["TamperDetected"]
    del world.later(10).pods[old]
    world.ready("A").settle()
    assert world.last.evict == ()
    world.settle().ready("A").settle()
    assert world.condition("Degraded") == ("False", "None")


def test_files_of_another_version_move_no_pod() -> None:
    world = serving("n1")
    made(world, ("n1", 0))
    world.hold("B", state="Failed", reason="IntegrityFailed", since="2026-01-02T00:00:00Z").settle()
    assert world.last.evict == ()


def test_pods_that_fetched_for_themselves_read_no_file_of_the_node() -> None:
    world = serving("n1", delivery="Pod")
    made(world, ("n1", 0))
    world.hold("A", alteredAt="2026-01-02T00:00:00Z").settle()
    assert world.last.evict == ()
