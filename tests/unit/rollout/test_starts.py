"""What keeps a version from starting, and how a first one begins to serve, one sentence a case."""

from dataclasses import replace
from typing import Any

from edgemodel.api.conditions import Reason
from edgemodel.rollout.facts import Hold, Seen
from tests.unit.rollout.story import CANARY, MEMORY, STOP_FIRST, SURGE, Rollout
from tests.unit.rollout.versions import digest, slot, up

# What holds a start


def test_a_hold_keeps_a_candidate_from_starting_and_not_one_that_runs() -> None:
    rollout = Rollout(replace(SURGE, hold=MEMORY))
    taken = rollout.look(10_000)
    assert rollout.stand == "active a, serve a, held InsufficientMemory"
    assert [one.version for one, _ in taken.run] == ["a"]
    rollout.wanted = SURGE
    rollout.look()
    rollout.wanted = replace(SURGE, hold=MEMORY)
    rollout.look(5)
    assert rollout.stand == "active a, b at 1/1 100%, serve b"


def test_a_hold_lets_nodes_get_the_version_and_its_deadline_does_not_run() -> None:
    rollout = Rollout(replace(SURGE, hold=MEMORY, delivered=frozenset({digest("b")})))
    for _ in range(2):
        taken = rollout.look(10_000)
        rollout.candidate = Seen()
        assert rollout.stand == "active a, b at 0/1 0%, serve a, held InsufficientMemory"
        assert taken.waiting
        assert taken.deadline is None
    rollout.wanted = replace(rollout.wanted, hold=None)
    taken = rollout.look(1)
    assert [one.version for one, _ in taken.run] == ["a", "b"]


def test_a_pause_is_told_before_another_hold() -> None:
    rollout = Rollout(replace(SURGE, hold=MEMORY, paused=True))
    rollout.look()
    assert rollout.stand == "active a, serve a, held Paused"


def test_a_hold_does_not_stop_what_serves_under_stop_first() -> None:
    rollout = Rollout(replace(STOP_FIRST, hold=Hold(Reason.WAITING_FOR_WINDOW, "closed")))
    rollout.active = up()
    taken = rollout.look()
    assert [(one.version, size) for one, size in taken.run] == [("a", 2)]


# The first version


def first(**wanted: Any) -> Rollout:
    rollout = Rollout(replace(SURGE, hold=MEMORY, **wanted), active=False)
    rollout.selected = None
    rollout.look()
    return rollout


def test_a_first_version_waits_for_its_golden_samples_and_for_nothing_else() -> None:
    rollout = first()
    assert rollout.stand == "b at 0/1 0%, serve b, closed"
    rollout.look(3, ready=1, golden="Inconclusive", watched=3.0)
    assert rollout.stand == "b at 0/1 0%, serve b, closed"
    rollout.look(1, golden="Pass")
    assert rollout.stand == "active b, serve b"


def test_a_first_version_whose_pods_do_not_tell_serves_all_the_same() -> None:
    rollout = first(on_no_data="Hold")
    rollout.look(3, golden="Inconclusive")
    rollout.look(10)
    assert rollout.stand == "active b, serve b"


def test_a_first_version_without_the_golden_samples_that_are_required_does_not_serve() -> None:
    rollout = first(golden="Required")
    rollout.look(3, golden="Inconclusive")
    rollout.look(100_000)
    assert rollout.stand == "b at 0/1 0%, serve b, closed, unknown"


def test_a_first_version_that_answers_wrongly_stays_and_serves_nobody() -> None:
    rollout = first()
    rollout.look(3, golden="Fail")
    rollout.look(100_000)
    assert rollout.stand == "b at 0/1 0%, serve b, closed"
    rollout.wanted = replace(rollout.wanted, target=slot("c"))
    rollout.look(1)
    assert rollout.stand == "c at 0/1 0%, serve c, closed"


def test_a_first_version_that_is_refused_before_it_served_is_dropped() -> None:
    rollout = first()
    rollout.wanted = replace(rollout.wanted, target=None, refused=frozenset({digest("b")}))
    rollout.look(3, golden="Inconclusive")
    assert rollout.stand == ""


def test_a_first_version_is_open_where_golden_samples_are_ignored() -> None:
    assert first(golden="Ignore").stand == "b at 0/1 0%, serve b"


def test_no_replicas_promote_a_canary_at_once() -> None:
    rollout = Rollout(replace(CANARY, replicas=0))
    rollout.look()
    rollout.look(1, pods=0, ready=0)
    assert rollout.stand == "active b, serve b"
