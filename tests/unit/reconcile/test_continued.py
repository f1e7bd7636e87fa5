"""Whole passes of an operator that was cut off, or restarted, and what it must not undo, one sentence a case."""

from collections.abc import Callable

import pytest

from edgemodel.api.conditions import Reason
from edgemodel.reconcile.decision import Decision
from tests.unit.reconcile.world import (
    LOOKING,
    UNREACHABLE,
    UNSIGNED,
    World,
    judged,
    serving,
)


@pytest.mark.parametrize("lost", ["status", "deletions", "everything but the Service"])
def test_an_operator_that_died_between_two_writes_is_continued(lost: str) -> None:
    world = serving(replicas=2)
    world.target = judged("B")
    world.settle().ready("B")
    before, status = dict(world.children), world.model.status
    world.turn()
    if lost == "status":
        world.model = world.model.model_copy(update={"status": status})
    elif lost == "everything but the Service":
        service = world.children["Service", "detector"]
        world.children = {**before, ("Service", "detector"): service}
        world.model = world.model.model_copy(update={"status": status})
    else:
        world.turn()
    world.settle()
    assert (world.sizes(), world.selected()) == ({"B": 2}, "B")
    assert world.slots() == {"active": "B", "last_good": "A"}


def unsigned_next(world: World) -> None:
    world.target = judged("B", refusal=UNSIGNED)


def revoked(world: World) -> None:
    world.target = judged("A", refusal=(Reason.KEY_REVOKED, "key release was revoked"))


def stale(world: World) -> None:
    world.target = judged("A", stale="it has expired")


def paused_next(world: World) -> None:
    world.edit(rollout={"paused": True})
    world.target = judged("B")


def taken_back_next(world: World) -> None:
    world.target = judged("B")
    world.settle().fail("B", "ModelLoadFailed")


@pytest.mark.parametrize("story", [unsigned_next, revoked, stale, paused_next, taken_back_next])
def test_a_restarted_operator_undoes_nothing_before_it_knows_as_much(story: Callable[[World], None]) -> None:
    world = serving()
    story(world)
    known = world.settle().target
    world.told()
    world.target = LOOKING
    assert world.turn() == Decision()
    world.target = known
    assert world.turn() == Decision()


def test_a_refused_active_version_is_not_made_again_because_nobody_can_judge_it_now() -> None:
    world = serving()
    revoked(world)
    world.settle()
    world.target = UNREACHABLE
    del world.children["Deployment", "detector-559aead0"]
    world.settle().settle()
    assert world.sizes() == {}
    assert world.condition("Degraded") == ("True", "PolicyRefused")
    world.target = judged("A")
    world.settle().ready("A").settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Degraded") == ("False", "None")


def test_transition_times_move_with_status_only() -> None:
    world = serving()
    since = {item.type: item.last_transition_time for item in world.model.status.conditions}
    world.later(60)
    world.target = UNREACHABLE
    world.settle()
    moved = {
        item.type for item in world.model.status.conditions if item.last_transition_time != since[item.type]
    }
    assert moved == {"ArtifactVerified"}


def test_times_in_status_have_whole_seconds() -> None:
    world = World("A")
    world.now = world.now.replace(microsecond=123456)
    world.settle()
    assert world.model.status.conditions[0].last_transition_time.microsecond == 0


def test_a_deployment_of_a_version_that_was_taken_back_goes_whoever_made_it_anew() -> None:
    world = World()
    world.settle().ready("A").settle()
    before = set(world.children)
    world.target = judged("B")
    world.turn()
    restored = {key: world.children[key] for key in world.children.keys() - before}
    assert restored
    world.settle().fail("B", "ModelLoadFailed").settle()
    assert world.condition("RolledBack")[0] == "True"
    world.children |= restored
    world.turn()
    assert not restored.keys() & world.children.keys()
