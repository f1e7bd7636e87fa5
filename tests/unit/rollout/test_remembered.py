"""What the machine writes down of a rollout, and what it makes of it later, one sentence a case."""

from dataclasses import replace
from datetime import timedelta

from edgemodel.api.conditions import Reason
from edgemodel.api.v1alpha1 import RolledBack, Slots
from edgemodel.rollout.facts import Failure
from edgemodel.rollout.machine import overdue_at
from tests.unit.rollout.versions import (
    BANNED,
    DELIVERED,
    LOAD_FAILED,
    NO_IMAGE,
    NOW,
    ON_NODES,
    REPLACING,
    SERVING,
    WAITING,
    WANTED,
    A,
    B,
    C,
    digest,
    slot,
    take,
    up,
)


def test_a_candidate_remembers_when_it_was_started_and_the_active_version_when_it_took_over() -> None:
    started = take(WANTED, SERVING, after=5).slots.candidate
    assert started is not None
    assert started.since == NOW + timedelta(seconds=5)
    promoted = take(WANTED, REPLACING, {"b": up()}, after=9).slots.active
    assert promoted is not None
    assert promoted.since == NOW + timedelta(seconds=9)


def test_the_deadline_counts_from_when_the_nodes_had_the_candidate() -> None:
    taken = take(ON_NODES, WAITING, {"a": up()}, selected="a", after=5000)
    candidate = taken.slots.candidate
    assert candidate is not None
    assert candidate.since == NOW
    assert candidate.delivered == NOW + timedelta(seconds=5000)
    assert overdue_at(candidate, 600) == (NOW + timedelta(seconds=5600)).timestamp()
    late = take(ON_NODES, taken.slots, {"a": up(), "b": up(2, 0)}, selected="a", after=5599)
    assert late.slots.candidate == candidate
    over = take(ON_NODES, taken.slots, {"a": up(), "b": up(2, 0)}, selected="a", after=5600)
    assert over.rolled_back is not None
    assert over.rolled_back.reason == "ProgressDeadlineExceeded"


def test_the_deadline_does_not_run_while_a_pause_holds_a_candidate_that_nodes_have() -> None:
    held = take(replace(ON_NODES, paused=True), WAITING, {"a": up()}, selected="a")
    assert held.slots.candidate is not None
    assert held.slots.candidate.delivered is None
    free = take(ON_NODES, held.slots, {"a": up()}, selected="a", after=10**6)
    assert free.slots.candidate is not None
    assert free.slots.candidate.delivered == NOW + timedelta(seconds=10**6)


def test_where_pods_fetch_for_themselves_nothing_is_delivered_to_nodes() -> None:
    candidate = take(WANTED, DELIVERED, {"a": up(), "b": up(2, 1)}, selected="a").slots.candidate
    assert candidate is not None
    assert candidate.delivered is None


def test_a_version_that_served_before_counts_its_tries() -> None:
    again = take(replace(WANTED, target=slot("a")), Slots(active=B, last_good=A)).slots.candidate
    assert again is not None
    assert again.tries == 2


def test_the_same_digest_from_another_registry_is_the_same_version_in_another_place() -> None:
    moved = slot("a", image=f"mirror.example.org/m@{digest('a')}", model_file="m.onnx")
    taken = take(replace(WANTED, target=moved), SERVING, {"a": up()}, after=7)
    assert taken.slots == Slots(active=moved.model_copy(update={"since": NOW, "tries": 1}))


def test_what_is_taken_back_says_why_and_for_which_spec() -> None:
    seen = {"a": up(), "b": up(2, 1, NO_IMAGE)}
    taken = take(replace(WANTED, generation=4, retry="x"), REPLACING, seen, after=600)
    assert taken.rolled_back == RolledBack(
        digest=digest("b"),
        reason="ProgressDeadlineExceeded",
        message="version b did not get ready: 1 of 2 pods were ready after 600 s; ImagePullFailed: no such image",
        at=NOW + timedelta(seconds=600),
        retry="x",
        generation=4,
    )


def test_a_candidate_without_room_is_told_of_the_strategy_that_needs_less() -> None:
    full = Failure(Reason.UNSCHEDULABLE, "Insufficient memory", fatal=False)
    taken = take(WANTED, REPLACING, {"a": up(), "b": up(2, 0, full)}, after=600)
    assert taken.rolled_back is not None
    assert "StopFirst" in taken.rolled_back.message


def test_a_pods_long_story_fits_into_status() -> None:
    talkative = replace(LOAD_FAILED, message="x" * 10_000)
    taken = take(WANTED, REPLACING, {"a": up(), "b": up(2, 0, talkative)})
    assert taken.rolled_back is not None
    assert len(taken.rolled_back.message) == 4096


def test_a_candidate_without_a_start_has_no_deadline() -> None:
    assert overdue_at(slot("a"), 600) is None


def test_what_failed_before_the_last_one_that_failed_is_not_tried_again_either() -> None:
    failing = {"a": up(), "c": up(ready=0, failure=LOAD_FAILED)}
    wanted = replace(WANTED, target=slot("c"))
    taken = take(wanted, Slots(active=A, candidate=C), failing, rolled_back=BANNED, selected="a")
    back = taken.rolled_back
    assert back is not None
    assert (back.digest, [one.digest for one in back.earlier]) == (digest("c"), [digest("b")])
    assert take(WANTED, taken.slots, {"a": up()}, rolled_back=back, selected="a").slots.candidate is None
    asked = take(replace(WANTED, retry="again"), taken.slots, {"a": up()}, rolled_back=back, selected="a")
    assert asked.slots.candidate is not None


def test_a_version_that_fails_again_is_remembered_once_and_old_failures_are_forgotten() -> None:
    back: RolledBack | None = None
    for letter in "bcdef0123456b":
        candidate, seen = slot(letter, since=NOW), {"a": up(), letter: up(ready=0, failure=LOAD_FAILED)}
        wanted = replace(WANTED, target=candidate)
        back = take(wanted, Slots(active=A, candidate=candidate), seen, rolled_back=back).rolled_back
    assert back is not None
    assert "".join(one.digest[7] for one in back.earlier) == "6543210f"
