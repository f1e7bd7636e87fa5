"""Copies of requests as evidence: the gateway's own lines are read, and what they say is judged."""

import random
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from edgemodel.gateway.shadow_metrics import ShadowMetrics
from edgemodel.gateway.shadow_metrics import Trial as Counted
from edgemodel.rollout.evidence import Counts, Ledger, Sample, Totals
from edgemodel.rollout.gate import ALPHA, GateLimits, GateResult, judge, overall
from edgemodel.rollout.shadow import Copies, Reading, Shadowed, ShadowLedger, Trial, read_copies

DIGEST = "sha256:" + "a" * 64
TRIAL = Trial("vision", "detector", DIGEST)
LIMITS = GateLimits(min_agreement=0.99)


def shadowed(*rounds: Copies) -> Shadowed:
    return Shadowed(rounds, sum(rounds, Copies()))


def found(seen: Shadowed | None, limits: GateLimits = LIMITS) -> GateResult | None:
    results = {one.name: one for one in judge(limits, Totals(), None, seen)}
    return results.get("shadowAgreement")


def test_what_the_gateway_writes_is_read() -> None:
    registry = CollectorRegistry()
    metrics = ShadowMetrics(registry)
    counted = Counted("vision", "detector", DIGEST)
    metrics.follow([counted, Counted("vision", "other", DIGEST)])
    assert read_copies(generate_latest(registry).decode()).copies[TRIAL] == Copies()
    for number, outcome in enumerate(("agree", "differ", "failed", "unanswered", "incomparable", "dropped")):
        for _ in range(number + 1):
            metrics.count(counted, outcome, 0.01)  # type: ignore[arg-type]
    reading = read_copies(generate_latest(registry).decode() + "process_start_time_seconds 1.5e+09\n")
    assert reading.copies[TRIAL] == Copies(1, 2, 3, 4, 5, 6)
    assert reading.started == "1.5e+09"
    metrics.follow([])
    assert read_copies(generate_latest(registry).decode()).copies == {}
    metrics.count(counted, "agree")
    assert read_copies(generate_latest(registry).decode()).copies == {}


@pytest.mark.parametrize("value", ["-1", "1.5", "1e300", "+", "1e", "9" * 40])
def test_a_count_that_cannot_be_is_passed_over(value: str) -> None:
    line = f'edgemodel_gateway_shadow_requests_total{{digest="d",name="m",namespace="n",outcome="agree"}} {value}'
    assert read_copies(f"{line}\n").copies == {}


def test_a_step_begins_to_count_anew() -> None:
    ledger = ShadowLedger(TRIAL)
    ledger.begin(1)
    ledger.add({"a": Reading({TRIAL: Copies(agree=5)})}, 1.0)
    assert ledger.seen().total == Copies()  # a first reading is only a beginning
    assert ledger.add({"a": Reading({TRIAL: Copies(agree=8, unanswered=2)})}, 1.0).unanswered == 2
    ledger.begin(2)
    assert ledger.seen() == Shadowed()
    ledger.add({"a": Reading({TRIAL: Copies(agree=9, unanswered=2)})}, 1.0)
    assert ledger.seen().total.agree == 1


def test_without_a_limit_agreement_is_told_and_decides_nothing() -> None:
    limits = GateLimits()
    assert found(None, limits) is None
    assert found(Shadowed(), limits) is None
    result = found(shadowed(Copies(agree=1, differ=99, seconds=1.0)), limits)
    assert result == GateResult("shadowAgreement", "Pass", "1.00 %", "", 100)


def test_where_agreement_is_asked_for_nothing_passes_without_it() -> None:
    result = found(Shadowed())
    assert result == GateResult(
        "shadowAgreement", "Inconclusive", "", "at least 99.00 %", 0, "0 of 50 requests"
    )
    assert found(None) is None  # a step in which nothing is copied
    few = found(shadowed(Copies(agree=10, incomparable=7, seconds=1.0)))
    assert few is not None
    assert few.message == "10 of 50 requests, 7 cannot be compared"


def test_enough_that_agree_pass_and_a_few_that_do_not_are_chance() -> None:
    good = found(shadowed(*[Copies(agree=100, seconds=1.0)] * 2))
    assert good is not None
    assert (good.result, good.value, good.samples) == ("Pass", "100.00 %", 200)
    unlucky = found(shadowed(Copies(agree=98, differ=2, seconds=1.0)))
    assert unlucky is not None
    assert unlucky.result == "Inconclusive"
    assert unlucky.suspect


def test_one_that_differs_fails_before_there_are_enough() -> None:
    result = found(shadowed(Copies(agree=5, differ=10, seconds=1.0)))
    assert result is not None
    assert result.result == "Fail"
    assert overall(judge(LIMITS, Totals(), None, shadowed(Copies(differ=15, seconds=1.0)))) == "Fail"


def test_where_all_are_to_agree_one_that_does_not_is_proof() -> None:
    result = found(shadowed(Copies(agree=500, differ=1, seconds=1.0)), GateLimits(min_agreement=1.0))
    assert result is not None
    assert result.result == "Fail"


@pytest.mark.timeout(20)
def test_a_version_at_its_limit_is_taken_back_as_rarely_as_stated() -> None:
    draw = random.Random("at the limit")
    failed = 0
    for _ in range(300):
        rounds: list[Copies] = []
        for second in range(120):
            differ = sum(draw.random() < 0.05 for _ in range(20))
            rounds.append(Copies(agree=20 - differ, differ=differ, seconds=1.0))
            if second % 5 == 4:
                result = found(shadowed(*rounds), GateLimits(min_agreement=0.95))
                if result is not None and result.result == "Fail":
                    failed += 1
                    break
    assert failed <= 300 * ALPHA


def test_a_copy_without_an_answer_is_an_error_that_no_pod_counts() -> None:
    ledger = Ledger("sha256:aa")
    ledger.add({"candidate": {"a": Sample()}, "active": {}}, 1.0)
    ledger.add({"candidate": {"a": Sample(requests=10)}, "active": {}}, 1.0, unanswered=3)
    total = ledger.evidence().candidate.total
    assert (total.requests, total.errors, total.timed) == (13, 3, 0)
    # One that waits for a silent pod is not lost.
    ledger.add({"candidate": {"a": None}, "active": {}}, 1.0, unanswered=2)
    ledger.add({"candidate": {"a": Sample(requests=11)}, "active": {}}, 1.0)
    total = ledger.evidence().candidate.total
    assert (total.requests, total.errors) == (16, 5)
    assert isinstance(total, Counts)


def test_beside_copies_alone_the_active_version_is_a_yardstick() -> None:
    ledger = Ledger("sha256:aa")
    ledger.begin(1, 0, datetime(2026, 1, 1, tzinfo=UTC))
    ledger.see("active", {})
    ledger.add({"candidate": {"a": Sample()}, "active": {"b": Sample()}}, 1.0)
    ledger.add({"candidate": {"a": Sample(requests=5)}, "active": {"b": Sample(requests=9)}}, 1.0)
    active = ledger.evidence().active
    assert active is not None
    assert active.concurrent
