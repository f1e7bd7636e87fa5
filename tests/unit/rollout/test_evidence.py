"""From readings of counters to totals: resets, replaced pods, missing readings, servers of two releases."""

from datetime import UTC, datetime

import pytest

from edgemodel.rollout.evidence import (
    MAX_ROUNDS,
    PATIENCE,
    Counts,
    GoldenResult,
    Ledger,
    Life,
    Role,
    Sample,
    difference,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOUNDS = (0.01, 0.1)


def sample(requests: int, slow: int = 0, errors: int = 0, started: float = 1.0) -> Sample:
    return Sample(requests, errors, requests, BOUNDS, (requests - slow, requests), started)


def ledger(
    candidates: tuple[str, ...] = ("c",), actives: tuple[str, ...] = ("a",), weight: int = 50
) -> Ledger:
    made = Ledger("sha256:c")
    made.see("candidate", {uid: Life(f"pod-{uid}") for uid in candidates})
    made.see("active", {uid: Life(f"pod-{uid}") for uid in actives})
    made.begin(1, weight, NOW)
    return made


def add(made: Ledger, candidate: Sample | None, active: Sample | None = None, seconds: float = 1.0) -> bool:
    return made.add({"candidate": {"c": candidate}, "active": {"a": active or sample(0)}}, seconds)


def test_what_was_answered_before_the_first_reading_does_not_count() -> None:
    made = ledger()
    assert not add(made, sample(100, errors=7), sample(500))
    assert add(made, sample(110, slow=3, errors=8), sample(590))
    found = made.evidence()
    assert found.candidate.total == Counts(10, 1, 10, BOUNDS, (7, 10), 1.0)
    assert found.active is not None
    assert found.active.total.requests == 90
    assert found.active.concurrent
    assert found.since == NOW


def test_counters_that_begin_anew_count_from_zero() -> None:
    assert difference(sample(100), sample(4, errors=1)).requests == 4
    assert difference(sample(100, errors=5), sample(120, errors=2)) == Counts(120, 2, 120, BOUNDS, (120, 120))
    assert difference(sample(100, slow=90), sample(101, slow=90)).requests == 1
    # More requests than before, yet by another process.
    assert difference(sample(100, started=1.0), sample(150, started=2.0)).requests == 150
    # Buckets that fell though the total did not.
    assert difference(sample(100), sample(110, slow=105)).requests == 110


def test_differences_that_do_not_fit_together_are_those_of_counters_that_began_anew() -> None:
    assert difference(Sample(10, 0), Sample(11, 5)) == Counts(11, 5)
    bucket_of_more_than_all = difference(Sample(10, 0, 10, (0.1,), (5,)), Sample(11, 0, 11, (0.1,), (9,)))
    assert bucket_of_more_than_all == Counts(11, 0, 11, (0.1,), (9,))


def test_a_server_of_another_release_in_the_same_pod_counts_from_zero() -> None:
    other = Sample(150, 0, 150, (0.01, 0.05, 0.1), (150, 150, 150), 1.0)
    assert difference(sample(100), other).requests == 150
    assert difference(Sample(3, 1), sample(5, errors=1)).requests == 2


def test_a_pod_that_is_replaced_is_forgotten_and_its_successor_counted_from_its_first_reading() -> None:
    made = ledger()
    add(made, sample(0))
    add(made, sample(50))
    made.see("candidate", {"new": Life("pod-new")})
    assert not made.add({"candidate": {"new": sample(5)}, "active": {"a": sample(0)}}, 1.0)
    assert made.add({"candidate": {"new": sample(9)}, "active": {"a": sample(0)}}, 1.0)
    assert made.evidence().candidate.total.requests == 54
    # Came back under its old name: its counters are another's.
    made.see("candidate", {"c": Life("pod-c")})
    assert not made.add({"candidate": {"c": sample(900)}, "active": {"a": sample(0)}}, 1.0)


def test_a_round_waits_for_a_pod_that_is_silent_and_both_versions_with_it() -> None:
    made = ledger()
    add(made, sample(0), sample(0))
    for late in range(1, PATIENCE):
        assert not made.add({"candidate": {"c": sample(100 * late)}, "active": {"a": None}}, 1.0)
        assert made.evidence().candidate.rounds == ()
    assert add(made, sample(300), sample(900))
    (mine,) = made.evidence().candidate.rounds
    active = made.evidence().active
    assert active is not None
    (theirs,) = active.rounds
    assert (mine.requests, theirs.requests) == (300, 900)
    assert mine.seconds == theirs.seconds == PATIENCE


def test_a_pod_that_stays_silent_is_left_out_and_loses_nothing_when_it_comes_back() -> None:
    made = ledger(candidates=("c", "d"))
    both: dict[Role, dict[str, Sample | None]] = {"candidate": {"c": sample(0), "d": sample(0)}, "active": {}}
    made.add(both, 1.0)
    for turn in range(PATIENCE):
        made.add({"candidate": {"c": sample(10 * turn + 10), "d": None}, "active": {}}, 1.0)
    assert made.evidence().candidate.total.requests == 10 * PATIENCE
    made.add({"candidate": {"c": sample(10 * PATIENCE), "d": sample(70)}, "active": {}}, 1.0)
    assert made.evidence().candidate.total.requests == 10 * PATIENCE + 70


def test_a_step_begins_anew_and_what_the_active_version_did_before_is_kept() -> None:
    made = ledger(weight=10)
    add(made, sample(0), sample(0))
    add(made, sample(10), sample(90))
    made.begin(1, 10, NOW)
    assert made.evidence().candidate.total.requests == 10
    made.begin(2, 100, NOW)
    assert made.evidence().candidate.total.requests == 0
    add(made, sample(110), sample(95))
    found = made.evidence()
    assert found.candidate.total.requests == 100
    assert found.active is not None
    assert found.active.before.requests == 90
    assert found.active.all.requests == 95
    assert not found.active.concurrent


def test_without_an_active_version_there_is_none() -> None:
    made = Ledger("sha256:c")
    made.see("candidate", {"c": Life("pod-c")})
    made.begin(None, 0, NOW)
    made.add({"candidate": {"c": sample(1)}}, 1.0)
    made.add({"candidate": {"c": sample(9)}}, 1.0)
    found = made.evidence((GoldenResult("pod-c", "Pass"),))
    assert found.active is None
    assert found.golden == (GoldenResult("pod-c", "Pass"),)
    assert found.candidate.total.requests == 8


def test_restarts_count_from_the_steps_beginning_and_a_new_pods_from_zero() -> None:
    made = Ledger("sha256:c")
    made.see("candidate", {"c": Life("pod-c", ends=3), "d": Life("pod-d")})
    made.begin(1, 50, NOW)
    assert made.evidence().candidate.restarts == 0
    made.see("candidate", {"c": Life("pod-c", ends=4), "e": Life("pod-e", ends=2)})
    assert made.evidence().candidate.restarts == 2
    made.begin(2, 100, NOW)
    assert made.evidence().candidate.restarts == 0


def test_a_pod_killed_for_its_memory_is_named_once_that_happened_in_this_step() -> None:
    made = Ledger("sha256:c")
    made.see("candidate", {"c": Life("pod-c", ends=1, out_of_memory=True)})
    made.begin(1, 50, NOW)
    assert made.evidence().candidate.out_of_memory == ""
    made.see("candidate", {"c": Life("pod-c", ends=2, out_of_memory=True)})
    assert made.evidence().candidate.out_of_memory == "pod-c"
    # Ended, and not started again yet.
    made.begin(2, 50, NOW)
    made.see("candidate", {"d": Life("pod-d", ends=1, out_of_memory=True)})
    assert made.evidence().candidate.out_of_memory == "pod-d"


def test_a_long_step_keeps_all_counts_in_bounded_memory() -> None:
    made = ledger()
    add(made, sample(0), sample(0))
    for turn in range(1, 10 * MAX_ROUNDS):
        add(made, sample(3 * turn, slow=turn), sample(5 * turn))
    found = made.evidence()
    assert found.active is not None
    assert len(found.candidate.rounds) == len(found.active.rounds) <= MAX_ROUNDS
    turns = 10 * MAX_ROUNDS - 1
    assert found.candidate.total == Counts(
        3 * turns, 0, 3 * turns, BOUNDS, (2 * turns, 3 * turns), float(turns)
    )
    assert found.active.total.requests == 5 * turns


def test_histograms_of_two_releases_are_compared_by_the_bounds_that_both_have() -> None:
    old = Counts(10, 0, 10, (0.01, 0.05, 0.1), (5, 8, 10))
    new = Counts(10, 0, 10, (0.01, 0.02, 0.1), (6, 7, 9))
    assert old + new == Counts(20, 0, 20, (0.01, 0.1), (11, 19))
    assert old + Counts() == Counts() + old == old


def test_shares_and_percentiles() -> None:
    counts = Counts(100, 0, 100, (0.01, 0.02, 0.1), (50, 98, 99))
    assert counts.slower(0.02) == pytest.approx(0.02)
    assert counts.slower(0.03) == pytest.approx(0.01)
    assert counts.slower(5.0) == 0
    assert counts.quantile(0.5) == pytest.approx(0.01)
    assert counts.quantile(0.74) == pytest.approx(0.015)
    assert counts.quantile(0.995) is None
    assert Counts().quantile(0.5) is None
    assert (counts.bound_above(0.02), counts.bound_above(0.021), counts.bound_above(0.2)) == (0.02, 0.1, None)
    assert counts.bound_above(0.015, also=(0.01, 0.1)) == 0.1
