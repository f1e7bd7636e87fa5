"""How a candidate's share grows: Surge, StopFirst and Canary over time, one sentence a case."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgemodel.api.conditions import Reason
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import RolledBack, Slots
from edgemodel.rollout.facts import Failure, Hold, Seen, Wanted, names
from edgemodel.rollout.machine import Step, step
from tests.unit.rollout.test_machine import NOW, A, B, digest, slot, up

SURGE = Wanted(
    target=slot("b"), replicas=2, generation=1, steps=((100, 30.0),), golden="IfPresent", on_no_data="Proceed"
)
CANARY = replace(SURGE, strategy="Canary", steps=((10, 60.0), (50, 60.0), (100, 30.0)), on_no_data="Hold")
STOP_FIRST = replace(SURGE, strategy="StopFirst")
CRASHED = Failure(Reason.SERVER_CRASHED, "boom", fatal=True)
MEMORY = Hold(Reason.INSUFFICIENT_MEMORY, "no memory for both")


class Rollout:
    """A rollout from A to B, step by step; pods are ready unless told otherwise."""

    def __init__(self, wanted: Wanted, *, active: bool = True) -> None:
        self.wanted = wanted
        self.slots = Slots(active=A if active else None)
        self.at: RolloutStatus | None = None
        self.banned: RolledBack | None = None
        self.now = NOW
        self.active = up() if wanted.strategy != "StopFirst" else up(0, replicas=0)
        self.candidate: Seen | None = None
        self.last: Step | None = None
        self.selected: str | None = digest("a")

    def look(self, after: float = 0, **seen: Any) -> Step:
        """Take a step ``after`` seconds, with a candidate that is as before but for what is given."""
        self.now += timedelta(seconds=after)
        if self.candidate is None and self.slots.candidate is not None:
            self.candidate = replace(up(), golden="Pass", watched=1e9)
        if seen and self.candidate is not None:
            self.candidate = replace(self.candidate, **seen)
        found = {digest("a"): self.active} if self.slots.active or self.slots.last_good else {}
        if self.candidate is not None:
            found[digest("b")] = self.candidate
        taken = step(self.wanted, self.slots, self.banned, found, self.selected, self.now, self.at)
        self.slots, self.banned, self.at, self.last = taken.slots, taken.rolled_back, taken.rollout, taken
        return taken

    @property
    def stand(self) -> str:
        """Where it stands, in few words."""
        assert self.last is not None
        slots, at = self.slots, self.at
        words = [f"active {slots.active.version}"] if slots.active else []
        if slots.candidate is not None and at is not None:
            words.append(f"{slots.candidate.version} at {at.step}/{at.steps} {at.weight}%")
        words += [f"serve {self.last.serve.version}"] if self.last.serve else []
        words += ["closed"] if self.last.closed else []
        words += ["unknown"] if self.last.inconclusive else []
        words += [f"held {self.last.held.reason}"] if self.last.held else []
        words += [f"back {self.banned.digest[7]} {self.banned.reason}"] if self.banned else []
        return ", ".join(words)


def begun(wanted: Wanted, **seen: Any) -> Rollout:
    """Return a rollout whose candidate has just got its first requests."""
    rollout = Rollout(wanted)
    rollout.look()
    rollout.look(5, **seen)
    return rollout


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


# Orders


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
