"""Verdicts, one by one: what is good, what is bad, what is not known, and what each is told with."""

import pytest

from edgemodel.rollout.evidence import Counts, GoldenResult, Totals
from edgemodel.rollout.gate import (
    GateLimits,
    GateResult,
    Verdict,
    judge,
    judge_golden,
    overall,
)

BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1)
LIMITS = GateLimits()


def second(requests: int, *, errors: int = 0, slow: float = 0.0) -> Counts:
    """Return one second in which all took 5 to 10 ms, but for a share that took 50 to 100 ms."""
    late = round(requests * slow)
    quick = requests - late
    return Counts(requests, errors, requests, BOUNDS, (0, quick, quick, quick, requests), 1.0)


def totals(*rounds: Counts, **more: object) -> Totals:
    return Totals(rounds=rounds, **more)  # type: ignore[arg-type]


def found(
    candidate: Totals, active: Totals | None = None, limits: GateLimits = LIMITS
) -> dict[str, GateResult]:
    return {result.name: result for result in judge(limits, candidate, active)}


def verdicts(
    candidate: Totals, active: Totals | None = None, limits: GateLimits = LIMITS
) -> dict[str, Verdict]:
    return {name: result.result for name, result in found(candidate, active, limits).items()}


BESIDE = totals(*[second(90)] * 20, concurrent=True)
BEFORE = Totals(rounds=(Counts(seconds=1.0),) * 20, before=second(2000))


def test_a_good_version_passes_every_test() -> None:
    limits = GateLimits(max_latency_p99=0.1)
    for active in (BESIDE, BEFORE):
        assert verdicts(totals(*[second(10)] * 20), active, limits) == {
            "restarts": "Pass",
            "errors": "Pass",
            "errorsAgainstActive": "Pass",
            "latency": "Pass",
            "latencyAgainstActive": "Pass",
            "medianAgainstActive": "Pass",
        }


def test_only_tests_that_apply_are_there() -> None:
    assert list(verdicts(totals(second(100)))) == ["restarts", "errors"]
    nothing = totals(Counts(seconds=1.0))
    assert list(verdicts(totals(second(100)), nothing)) == ["restarts", "errors"]


def test_too_few_requests_are_inconclusive_and_say_how_many() -> None:
    results = found(totals(second(49)), totals(second(90), concurrent=True))
    assert results["errors"] == GateResult(
        "errors", "Inconclusive", "0.00 %", "at most 1.00 %", 49, "49 of 50 requests"
    )
    assert results["latencyAgainstActive"].result == "Inconclusive"
    assert verdicts(totals(*[Counts(seconds=1.0)] * 20), BESIDE)["errors"] == "Inconclusive"


def test_an_active_version_beside_that_answers_too_little_is_waited_for() -> None:
    few = totals(*[second(1)] * 20, concurrent=True)
    results = verdicts(totals(*[second(90)] * 20), few)
    assert results["errors"] == "Pass"
    assert results["errorsAgainstActive"] == results["latencyAgainstActive"] == "Inconclusive"


def test_errors_beyond_the_limit_fail_and_few_requests_may_be_enough_to_know() -> None:
    assert verdicts(totals(second(500, errors=25), second(500, errors=25)))["errors"] == "Fail"
    assert verdicts(totals(second(6, errors=6)))["errors"] == "Fail"
    assert verdicts(totals(second(1, errors=1)))["errors"] == "Inconclusive"


def test_errors_above_the_limit_that_may_be_chance_are_inconclusive() -> None:
    results = found(totals(*[second(50)] * 3, second(50, errors=3)))
    assert results["errors"].result == "Inconclusive"
    assert "above the limit" in results["errors"].message
    assert results["errors"].value == "1.50 %"


def test_more_errors_than_the_active_version_fail_though_the_limit_allows_them() -> None:
    limits = GateLimits(max_error_ratio=0.1)
    candidate = totals(*[second(50, errors=2)] * 20)
    assert verdicts(candidate, totals(*[second(50)] * 20, concurrent=True), limits) == {
        "restarts": "Pass",
        "errors": "Pass",
        "errorsAgainstActive": "Fail",
        "latencyAgainstActive": "Pass",
        "medianAgainstActive": "Pass",
    }
    assert verdicts(candidate, BEFORE, limits)["errorsAgainstActive"] == "Fail"
    same = totals(*[second(50, errors=2)] * 20, concurrent=True)
    assert verdicts(candidate, same, limits)["errorsAgainstActive"] == "Pass"


def test_what_both_suffer_at_once_fails_nobody_and_passes_nobody() -> None:
    good, bad = [second(50)] * 10, [second(50, errors=20, slow=0.9)] * 8
    limits = GateLimits(max_latency_p99=0.02)
    results = verdicts(totals(*good, *bad), totals(*good, *bad, concurrent=True), limits)
    assert results["errors"] == results["latency"] == "Inconclusive"
    assert "Fail" not in results.values()
    # The same from the candidate alone.
    alone = verdicts(totals(*good, *bad), totals(*good, *good[:8], concurrent=True), limits)
    assert alone == {
        "restarts": "Pass",
        "errors": "Fail",
        "errorsAgainstActive": "Fail",
        "latency": "Fail",
        "latencyAgainstActive": "Fail",
        "medianAgainstActive": "Pass",
    }


def test_slower_than_the_active_version_fails() -> None:
    slow = totals(*[second(10, slow=1.0)] * 20)
    results = found(slow, BESIDE)
    assert results["latencyAgainstActive"].result == "Fail"
    assert results["latencyAgainstActive"].limit == "p99 at most 20 ms; of the active version 9.95 ms"
    assert verdicts(slow, BEFORE)["latencyAgainstActive"] == "Fail"
    # Ten times as slow is allowed here.
    limits = GateLimits(max_latency_increase=9)
    assert verdicts(slow, BESIDE, limits)["latencyAgainstActive"] == "Pass"


def test_what_is_slow_throughout_shows_on_a_machine_whose_slowest_requests_are_slow_anyway() -> None:
    busy = Counts(90, 0, 90, BOUNDS, (80, 80, 80, 80, 90), 1.0)  # 5 ms, but for one in nine
    slow = Counts(10, 0, 10, BOUNDS, (0, 0, 0, 8, 10), 1.0)  # 50 ms
    results = verdicts(totals(*[slow] * 40), totals(*[busy] * 40, concurrent=True))
    assert results["latencyAgainstActive"] != "Fail"
    assert results["medianAgainstActive"] == "Fail"


def test_one_moment_of_slowness_proves_nothing() -> None:
    candidate = totals(*[second(10)] * 10, second(10, slow=1.0), *[second(10)] * 9)
    assert "Fail" not in verdicts(candidate, BESIDE).values()
    spell = totals(*[second(10)] * 10, *[second(10, slow=1.0)] * 5, *[second(10)] * 5)
    assert "Fail" not in verdicts(spell, BEFORE).values()


def test_a_limit_beyond_what_the_histogram_tells_is_never_passed_nor_failed() -> None:
    results = found(totals(*[second(50)] * 10), None, GateLimits(max_latency_p99=60.0))
    assert results["latency"].result == "Inconclusive"
    assert results["latency"].message == "the server's histogram ends at 100 ms"
    limits = GateLimits(max_latency_increase=100)
    assert verdicts(totals(*[second(10)] * 20), BESIDE, limits)["latencyAgainstActive"] == "Inconclusive"


def test_an_absolute_limit_takes_the_next_bucket() -> None:
    results = found(totals(*[second(50)] * 10), None, GateLimits(max_latency_p99=0.03))
    assert results["latency"].limit == "p99 at most 50 ms"
    assert results["latency"].value == "9.95 ms"


def test_a_pod_killed_for_its_memory_fails_and_so_do_two_restarts_of_one() -> None:
    good = [second(10)] * 20
    killed = found(totals(*good, restarts=1, out_of_memory="detector-x"))["restarts"]
    assert killed.result == "Fail"
    assert "detector-x" in killed.message
    assert verdicts(totals(*good, restarts=1))["restarts"] == "Pass"
    assert verdicts(totals(*good, restarts=2))["restarts"] == "Fail"
    # Twice the power went, and the active version's pods with it.
    power = totals(*[second(90)] * 20, concurrent=True, restarts=2)
    assert verdicts(totals(*good, restarts=2), power)["restarts"] == "Pass"


def test_more_steps_need_more_evidence_each() -> None:
    candidate = totals(second(6, errors=3))
    assert verdicts(candidate, None, GateLimits(steps=1))["errors"] == "Fail"
    assert verdicts(candidate, None, GateLimits(steps=20))["errors"] == "Inconclusive"


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ((), "Inconclusive"),
        (("Pass",), "Pass"),
        (("Pass", "Inconclusive"), "Inconclusive"),
        (("Inconclusive", "Fail", "Pass"), "Fail"),
    ],
)
def test_overall(results: tuple[Verdict, ...], verdict: Verdict) -> None:
    assert overall(GateResult(str(index), result) for index, result in enumerate(results)) == verdict


P, F, A = (GoldenResult(name, outcome) for name, outcome in (("p", "Pass"), ("f", "Fail"), ("a", "Absent")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("golden", "results", "pods", "verdict"),
    [
        ("Ignore", (F,), ("f",), None),
        ("IfPresent", (P,), ("p",), "Pass"),
        ("IfPresent", (A,), ("a",), "Pass"),
        ("IfPresent", (P, F), ("p", "f"), "Fail"),
        ("IfPresent", (P,), ("p", "late"), "Inconclusive"),
        ("IfPresent", (F,), ("f", "late"), "Fail"),
        ("IfPresent", (F,), ("another",), "Inconclusive"),
        ("IfPresent", (), (), "Inconclusive"),
        ("Required", (P,), ("p",), "Pass"),
        ("Required", (P, A), ("p", "a"), "Fail"),
        ("Required", (), ("late",), "Inconclusive"),
    ],
)
def test_golden_samples(
    golden: str, results: tuple[GoldenResult, ...], pods: tuple[str, ...], verdict: Verdict | None
) -> None:
    judged = judge_golden(GateLimits(golden=golden), results, pods)  # type: ignore[arg-type]
    assert (judged.result if judged else None) == verdict


def test_golden_samples_say_which_pod_and_why() -> None:
    failed = GoldenResult("detector-x", "Fail", "sample a, output scores: 0.4 instead of 0.9")
    judged = judge_golden(LIMITS, (failed, P), ("detector-x", "p"))
    assert judged is not None
    assert (judged.value, judged.samples) == ("1 of 2 pods", 2)
    assert judged.message == "pod detector-x: sample a, output scores: 0.4 instead of 0.9"
