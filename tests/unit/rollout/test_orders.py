"""What people order while a rollout is under way, one sentence a case."""

from dataclasses import replace
from typing import Any

import pytest

from edgemodel.api.v1alpha1 import Slots
from edgemodel.rollout.facts import names
from tests.unit.rollout.story import CANARY, CRASHED, MEMORY, SURGE, Rollout, begun
from tests.unit.rollout.versions import A, B, digest, slot, up


@pytest.mark.parametrize("order", [digest("b"), "b" * 12, f"sha256:{'b' * 12}", " " + "B" * 20])
def test_an_order_to_promote_skips_gate_and_steps_once_all_pods_are_ready(order: str) -> None:
    rollout = Rollout(replace(CANARY, promote=order))
    rollout.look()
    rollout.look(1, ready=1, golden="Inconclusive")
    assert rollout.slots.candidate is not None
    rollout.look(1, ready=2)
    assert rollout.stand == "active b, serve b"


@pytest.mark.parametrize("order", ["", "b" * 11, "c" * 12, digest("a"), "b" * 65])
def test_an_order_that_names_no_candidate_promotes_none(order: str) -> None:
    rollout = begun(replace(CANARY, promote=order))
    assert rollout.stand == "active a, b at 1/3 10%, serve a"


def test_a_pause_is_stronger_than_an_order_to_promote() -> None:
    rollout = begun(CANARY)
    rollout.wanted = replace(CANARY, promote=digest("b"), paused=True)
    rollout.look(1)
    assert "active a" in rollout.stand
    rollout.wanted = replace(CANARY, promote=digest("b"))
    rollout.look(1)
    assert rollout.stand == "active b, serve b"


def test_an_order_to_promote_does_not_bring_back_what_was_taken_back() -> None:
    rollout = begun(replace(CANARY, promote=""))
    rollout.look(1, gate="Fail")
    rollout.wanted = replace(CANARY, promote=digest("b"))
    rollout.look(1)
    assert rollout.stand == "active a, serve a, back b GateFailed"


def test_an_order_to_roll_back_a_candidate_takes_it_back_and_holds_as_long_as_it_stands() -> None:
    rollout = begun(CANARY)
    rollout.wanted = replace(CANARY, rollback=digest("b"))
    rollout.look(1)
    assert rollout.stand == "active a, serve a, back b Manual"
    rollout.wanted = replace(CANARY, rollback=digest("b"), generation=2, retry="again")
    rollout.look(1)
    assert rollout.stand == "active a, serve a, back b Manual"
    rollout.wanted = replace(CANARY, generation=2, retry="again")
    rollout.look(1)
    assert rollout.stand == "active a, b at 0/3 0%, serve a"


def restoring(**wanted: Any) -> Rollout:
    """Return a rollout in which B serves, A did before, and an order says that B is not to serve."""
    rollout = Rollout(replace(SURGE, rollback=digest("b"), **wanted))
    rollout.slots = Slots(active=B, last_good=A)
    rollout.candidate, rollout.selected = up(), digest("b")
    rollout.active = up(0, replicas=0)
    return rollout


@pytest.mark.parametrize("wanted", [{}, {"paused": True}, {"hold": MEMORY}], ids=["free", "paused", "held"])
def test_an_order_to_roll_back_what_serves_brings_the_last_good_version_back_without_a_gate(
    wanted: dict[str, Any],
) -> None:
    rollout = restoring(**wanted)
    taken = rollout.look()
    assert rollout.stand == "active b, a at 0/1 0%, serve b, back b Manual"
    assert [(one.version, size) for one, size in taken.run] == [("b", 2), ("a", 2)]
    rollout.active = replace(up(), golden="Inconclusive")
    taken = rollout.look(5)
    assert rollout.stand == "active a, serve a, back b Manual"
    assert rollout.slots.last_good is None
    assert taken.draining == {digest("b")}
    rollout.selected = digest("a")
    rollout.look(100_000)
    assert rollout.stand == "active a, serve a, back b Manual"


def test_a_last_good_version_that_does_not_start_leaves_what_serves() -> None:
    rollout = restoring()
    rollout.look()
    rollout.active = up(2, 0, CRASHED)
    rollout.look(5)
    assert rollout.stand == "active b, serve b, back a ServerCrashed"
    rollout.look(5)
    assert rollout.stand == "active b, serve b, back a ServerCrashed"


def test_without_a_last_good_version_an_order_to_roll_back_changes_nothing() -> None:
    rollout = Rollout(replace(SURGE, target=slot("a"), rollback=digest("a")))
    rollout.look()
    assert rollout.stand == "active a, serve a"


def test_stop_first_rolls_back_by_stopping_first() -> None:
    rollout = restoring(strategy="StopFirst")
    taken = rollout.look()
    assert [(one.version, size) for one, size in taken.run] == [("b", 0), ("a", 0)]
    rollout.candidate = up(0, replicas=0)
    rollout.active = up(2, 1)
    rollout.look(2)
    assert rollout.stand == "active b, a at 1/1 100%, serve a, back b Manual"
    rollout.active = up()
    rollout.look(2)
    assert rollout.stand == "active a, serve a, back b Manual"


def test_an_order_is_told_by_the_beginning_of_a_digest() -> None:
    assert names("sha256:" + "a" * 12, digest("a"))
    assert not names("sha256:" + "a" * 11, digest("a"))
    assert not names("", digest("a"))
