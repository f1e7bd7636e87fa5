"""How a candidate's share grows: Surge, StopFirst and Canary over time, one sentence a case."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgemodel.api.rollout import RolloutStatus
from edgemodel.rollout.facts import Wanted
from tests.unit.rollout.story import CANARY, CRASHED, STOP_FIRST, SURGE, Rollout, begun
from tests.unit.rollout.versions import digest, slot


def test_surge_gives_all_requests_at_once_and_promotes_when_the_window_has_passed() -> None:
    rollout = Rollout(SURGE)
    rollout.look()
    assert rollout.stand == "active a, b at 0/1 0%, serve a"
    rollout.look(5, ready=1)
    assert rollout.stand == "active a, b at 0/1 0%, serve a"
    rollout.look(5, ready=2)
    assert rollout.stand == "active a, b at 1/1 100%, serve b"
    taken = rollout.look(29)
    assert rollout.stand == "active a, b at 1/1 100%, serve b"
    assert [(one.version, size) for one, size in taken.run] == [("a", 2), ("b", 2)]
    assert taken.due == (rollout.now + timedelta(seconds=1)).timestamp()
    rollout.look(1)
    assert rollout.stand == "active b, serve b"
    assert rollout.slots.last_good is not None


def test_a_step_of_no_requests_is_judged_like_any_other() -> None:
    canary = replace(CANARY, steps=((0, 300.0), (10, 60.0), (100, 30.0)))
    rollout = begun(canary, gate="Inconclusive")
    assert rollout.stand == "active a, b at 1/3 0%, serve a"
    rollout.look(300)
    assert rollout.stand == "active a, b at 1/3 0%, serve a, unknown"
    rollout.look(1, gate="Pass")
    assert rollout.stand == "active a, b at 2/3 10%, serve a"
    failed = begun(canary, gate="Fail", why="shadowAgreement: 12 %")
    failed.look(1)
    assert failed.stand == "active a, serve a, back b GateFailed"


def test_canary_goes_from_step_to_step_on_a_gate_that_passes() -> None:
    rollout = begun(CANARY, gate="Pass")
    stands = [rollout.stand]
    for after in (59, 1, 59, 1, 29, 1):
        rollout.look(after)
        stands.append(rollout.stand)
    assert stands == [
        "active a, b at 1/3 10%, serve a",
        "active a, b at 1/3 10%, serve a",
        "active a, b at 2/3 50%, serve a",
        "active a, b at 2/3 50%, serve a",
        "active a, b at 3/3 100%, serve b",
        "active a, b at 3/3 100%, serve b",
        "active b, serve b",
    ]


def test_what_the_gate_said_of_one_step_says_nothing_of_the_next() -> None:
    rollout = begun(replace(CANARY, steps=((10, 0.0), (50, 0.0), (100, 0.0))), gate="Pass")
    assert rollout.stand == "active a, b at 1/3 10%, serve a, unknown"
    rollout.look(1)
    assert rollout.stand == "active a, b at 2/3 50%, serve a, unknown"


@pytest.mark.parametrize(
    ("on_no_data", "stand"),
    [
        ("Hold", "active a, b at 1/3 10%, serve a, unknown"),
        ("Proceed", "active a, b at 2/3 50%, serve a"),
        ("RollBack", "active a, serve a, back b GateInconclusive"),
    ],
)
def test_a_quiet_site_does_what_the_user_said(on_no_data: Any, stand: str) -> None:
    rollout = begun(replace(CANARY, on_no_data=on_no_data))
    rollout.look(59)
    assert rollout.stand == "active a, b at 1/3 10%, serve a"
    rollout.look(1)
    assert rollout.stand == stand


def test_what_looks_bad_does_not_go_on_for_want_of_proof() -> None:
    rollout = begun(SURGE)
    rollout.look(1000, suspect=True)
    assert rollout.stand == "active a, b at 1/1 100%, serve b, unknown"
    rollout.look(1, suspect=False)
    assert rollout.stand == "active b, serve b"


def test_a_held_canary_goes_on_when_the_gate_knows() -> None:
    rollout = begun(CANARY)
    rollout.look(100_000)
    rollout.look(1, gate="Pass")
    assert rollout.stand == "active a, b at 2/3 50%, serve a"


@pytest.mark.parametrize("on_no_data", ["Proceed", "RollBack"])
def test_an_operator_that_just_started_does_not_take_its_own_silence_for_the_sites(on_no_data: Any) -> None:
    rollout = begun(replace(CANARY, on_no_data=on_no_data))
    taken = rollout.look(100_000, watched=9.0)
    assert rollout.stand == "active a, b at 1/3 10%, serve a"
    assert taken.due == (rollout.now + timedelta(seconds=1)).timestamp()
    rollout.look(1, watched=10.0)
    assert "1/3" not in rollout.stand


@pytest.mark.parametrize("wanted", [SURGE, CANARY, STOP_FIRST], ids=["surge", "canary", "stop-first"])
@pytest.mark.parametrize("paused", [False, True])
def test_a_gate_that_fails_takes_the_candidate_back_at_once(wanted: Wanted, paused: bool) -> None:
    rollout = begun(wanted)
    rollout.wanted = replace(wanted, paused=paused)
    taken = rollout.look(1, gate="Fail", why="errors: 5 % of 1000, expected at most 1 %")
    assert rollout.stand == "active a, serve a, back b GateFailed"
    assert [(one.version, size) for one, size in taken.run] == [("a", 2)]
    assert rollout.banned is not None
    assert rollout.banned.message == (
        "version b did not pass the gate: errors: 5 % of 1000, expected at most 1 %"
    )


def test_pods_that_had_requests_stay_until_the_gateway_was_told_otherwise() -> None:
    rollout = begun(CANARY)
    taken = rollout.look(1, gate="Fail")
    assert (taken.draining, taken.remove) == (frozenset({digest("b")}), frozenset())
    again = rollout.look(1)
    assert (again.draining, again.remove) == (frozenset(), frozenset({digest("b")}))


@pytest.mark.parametrize("wanted", [SURGE, CANARY, STOP_FIRST], ids=["surge", "canary", "stop-first"])
def test_a_candidate_that_crashes_over_and_over_is_taken_back_at_any_step(wanted: Wanted) -> None:
    rollout = begun(wanted, gate="Pass")
    rollout.look(3, ready=1, failure=CRASHED)
    assert rollout.stand == "active a, serve a, back b ServerCrashed"


@pytest.mark.parametrize("wanted", [SURGE, CANARY, STOP_FIRST], ids=["surge", "canary", "stop-first"])
def test_no_request_goes_to_a_candidate_that_answers_golden_samples_wrongly(wanted: Wanted) -> None:
    rollout = Rollout(wanted)
    rollout.look()
    rollout.look(5, golden="Inconclusive", watched=5.0)
    assert rollout.stand == f"active a, b at 0/{len(wanted.steps)} 0%, serve a"
    rollout.look(1, golden="Fail", why="goldenSamples: 0 of 2 pods")
    assert rollout.stand == "active a, serve a, back b GoldenSamplesFailed"


def test_a_pod_that_comes_later_and_answers_wrongly_takes_the_candidate_back() -> None:
    rollout = begun(CANARY, gate="Pass")
    rollout.look(5, golden="Fail")
    assert rollout.stand == "active a, serve a, back b GoldenSamplesFailed"


@pytest.mark.parametrize(
    ("wanted", "stand"),
    [
        (SURGE, "active a, b at 1/1 100%, serve b"),
        (replace(SURGE, golden="Required"), "active a, b at 0/1 0%, serve a, unknown"),
        (replace(SURGE, on_no_data="RollBack"), "active a, serve a, back b GateInconclusive"),
        (CANARY, "active a, b at 0/3 0%, serve a, unknown"),
    ],
    ids=["if present", "required", "roll back", "hold"],
)
def test_pods_that_do_not_tell_of_golden_samples_are_waited_for_and_then_the_users_word_counts(
    wanted: Wanted, stand: str
) -> None:
    rollout = Rollout(wanted)
    rollout.look()
    rollout.look(5, golden="Inconclusive")
    rollout.look(9)
    assert rollout.stand == f"active a, b at 0/{len(wanted.steps)} 0%, serve a"
    rollout.look(1)
    assert rollout.stand == stand


def test_golden_samples_that_are_required_and_never_told_of_end_at_the_deadline() -> None:
    rollout = Rollout(replace(SURGE, golden="Required"))
    rollout.look()
    rollout.look(5, golden="Inconclusive")
    rollout.look(600)
    assert rollout.stand == "active a, serve a, back b ProgressDeadlineExceeded"
    assert rollout.banned is not None
    assert "golden samples" in rollout.banned.message


def test_a_steps_time_runs_only_while_all_pods_are_ready() -> None:
    rollout = begun(CANARY, gate="Pass")
    rollout.look(20)
    rollout.look(10, ready=1)  # seen at 30 s
    rollout.look(300, ready=2)
    rollout.look(29)
    assert rollout.stand == "active a, b at 1/3 10%, serve a"
    rollout.look(1)
    assert rollout.stand == "active a, b at 2/3 50%, serve a"


def test_a_candidate_whose_pods_go_for_good_ends_at_the_deadline_counted_from_then() -> None:
    rollout = begun(CANARY)
    rollout.look(100_000)
    taken = rollout.look(10, ready=0)
    assert taken.deadline == (rollout.now + timedelta(seconds=600)).timestamp()
    rollout.look(599)
    assert rollout.stand == "active a, b at 1/3 10%, serve a"
    rollout.look(1)
    assert rollout.stand == "active a, serve a, back b ProgressDeadlineExceeded"


def test_requests_go_back_to_the_active_version_while_no_pod_of_the_candidate_answers() -> None:
    rollout = begun(SURGE)
    rollout.look(1, ready=0)
    assert rollout.stand == "active a, b at 1/1 100%, serve a"
    rollout.look(1, ready=2)
    assert rollout.stand == "active a, b at 1/1 100%, serve b"


def test_a_pause_holds_the_step_and_the_time_goes_on() -> None:
    rollout = begun(CANARY, gate="Pass")
    rollout.wanted = replace(CANARY, paused=True)
    rollout.look(100)
    assert rollout.stand == "active a, b at 1/3 10%, serve a"
    rollout.wanted = CANARY
    rollout.look(1)
    assert rollout.stand == "active a, b at 2/3 50%, serve a"


def test_a_pause_holds_the_first_requests() -> None:
    rollout = Rollout(CANARY)
    rollout.look()
    rollout.wanted = replace(CANARY, paused=True)
    rollout.look(50)
    assert rollout.stand == "active a, b at 0/3 0%, serve a"


def test_an_operator_that_restarts_goes_on_where_it_was() -> None:
    rollout = begun(CANARY, gate="Pass")
    rollout.look(30)
    assert rollout.at is not None
    # As it comes back from the API server.
    rollout.at = RolloutStatus.model_validate_json(rollout.at.model_dump_json(by_alias=True))
    rollout.look(30)
    assert rollout.stand == "active a, b at 2/3 50%, serve a"


def test_a_spec_that_goes_back_takes_the_weight_away() -> None:
    rollout = begun(CANARY)
    rollout.wanted = replace(CANARY, target=slot("a"))
    taken = rollout.look(1)
    assert rollout.stand == "active a, serve a"
    assert (taken.weight, taken.draining) == (0, frozenset({digest("b")}))


def test_a_new_target_begins_at_the_first_step_and_the_old_candidate_goes() -> None:
    rollout = begun(CANARY, gate="Pass")
    rollout.look(60)
    rollout.wanted = replace(CANARY, target=slot("c"))
    taken = rollout.look(1)
    assert rollout.stand == "active a, c at 0/3 0%, serve a"
    assert [(one.version, size) for one, size in taken.run] == [("a", 2), ("c", 2)]


def test_steps_that_are_edited_under_way_count_from_now() -> None:
    rollout = begun(CANARY, gate="Pass")
    rollout.look(60)
    rollout.wanted = replace(CANARY, steps=((20, 60.0), (100, 30.0)))
    rollout.look(59)
    assert rollout.stand == "active a, b at 2/2 100%, serve b"
    rollout.look(29)
    assert rollout.stand == "active a, b at 2/2 100%, serve b"
    rollout.look(1)
    assert rollout.stand == "active b, serve b"
