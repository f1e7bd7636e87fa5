"""Is the candidate good, bad, or not yet known? Three answers, from what it and the active version answered.

Promises

* Pass means: enough requests, and nothing that speaks against it. Fail means: proven worse, at a false-alarm rate of at most
  ``ALPHA`` for all tests, steps and looks of one rollout together. Everything else is Inconclusive: never a guess.
* Only answers of the server's own making (5xx) count as errors, never a client's mistakes.
* What the active version suffers at the same time speaks against nobody: where both are beyond an absolute limit the answer
  is Inconclusive, since going back would help nobody.
* The same totals give the same results. Nothing is remembered here.

Which test, why, its power and what a histogram's buckets mean for it: docs/reference/gate.md. Leaves to others: counting
(``evidence``), the arithmetic of evidence (``statistics``), what follows from a verdict (``machine``).
"""

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from edgemodel.rollout.agreement import agreement, disagreement_evidence
from edgemodel.rollout.evidence import Counts, GoldenResult, Totals
from edgemodel.rollout.shadow import Shadowed
from edgemodel.rollout.statistics import difference_evidence, ratio_evidence, share_evidence, upper_bound

Verdict = Literal["Pass", "Fail", "Inconclusive"]

ALPHA = 0.005
"""Probability that a version which is no worse is taken back by any test, at any step, at any look of one rollout."""
_TESTS = 5
SUSPICION = math.log(20)
"""From this evidence on a version does not pass any more, though it is not proven bad."""
_ABOVE = "above the limit so far, and not proven"
_LOOKS_WORSE = "looks worse, and not proven"
P99 = 0.01
"""Share of requests that may be slower than a limit on the 99th percentile."""
MEDIAN = 0.5
"""The same for the median: on a machine whose slowest requests are slow anyway, one that is slow throughout shows there."""
ERRORS_A_SECOND = 200.0
"""More requests than these of one second tell no more about the error ratio than these would."""
SPELL = 5.0
"""Seconds that are one observation of latency while the active version takes no requests: a slow moment of the machine,
which nothing tells from a slow version then, is to be over by the third."""
BLOCK = 20
"""Requests of the active version that a stretch of time needs for its share of slow ones to be a yardstick."""
MAX_RESTARTS = 2
"""Restarts of one pod, beyond those of any pod of the active version, that are a failure. One alone may be the node's."""

_MILLISECOND, _SECOND = 0.001, 1.0


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What the user allows."""

    min_requests: int = 50
    max_error_ratio: float = 0.01
    max_latency_p99: float | None = None
    """Seconds; None for no absolute limit."""
    max_latency_increase: float = 0.5
    """Part by which median and 99th percentile may exceed the active version's."""
    min_agreement: float | None = None
    """Part of a candidate's answers to copies of requests that are to agree; None for no such limit."""
    golden: Literal["Required", "IfPresent", "Ignore"] = "IfPresent"
    steps: int = 1
    """Steps of the rollout: each begins to count anew, and has its part of ``ALPHA``."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one test says."""

    name: str
    """``errors``, ``errorsAgainstActive``, ``latency``, ``latencyAgainstActive``, ``medianAgainstActive``,
    ``restarts``, ``shadowAgreement`` or ``goldenSamples``."""
    result: Verdict
    value: str = ""
    limit: str = ""
    samples: int = 0
    message: str = ""

    @property
    def suspect(self) -> bool:
        """There are requests enough, and what they show is not good, though it may be chance: no want of data."""
        return self.result == "Inconclusive" and self.message in (_ABOVE, _LOOKS_WORSE)


def overall(results: Iterable[GateResult]) -> Verdict:
    """Return Fail if any failed, Pass if all of them (one at least) passed, otherwise Inconclusive."""
    found = {result.result for result in results}
    if "Fail" in found:
        return "Fail"
    return "Pass" if found == {"Pass"} else "Inconclusive"


def judge(
    gate: GateLimits, candidate: Totals, active: Totals | None, shadowed: Shadowed | None = None
) -> tuple[GateResult, ...]:
    """Return the result of every test that applies.

    Args:
        gate: what is allowed.
        candidate: what the candidate answered since the step began.
        active: what the active version answered; None when there is nothing to compare with, and then nothing is compared.
        shadowed: what came of copies of requests; None when none are made.
    """
    alpha = ALPHA / ((_TESTS + (gate.min_agreement is not None)) * max(1, gate.steps))
    results = [_restarts(candidate, active)]
    if active is not None and not active.concurrent and active.all.requests < gate.min_requests:
        active = None  # it told too little, and takes no more requests that could tell
    results.append(_errors(gate, candidate, active, alpha))
    if active is not None:
        results.append(_errors_against_active(gate, candidate, active, alpha))
    if gate.max_latency_p99 is not None:
        results.append(_latency(gate, gate.max_latency_p99, candidate, active, alpha))
    if active is not None:
        results.append(_slower(gate, candidate, active, alpha, "latencyAgainstActive", P99))
        results.append(_slower(gate, candidate, active, alpha, "medianAgainstActive", MEDIAN))
    if shadowed is not None and (gate.min_agreement is not None or shadowed.total.compared):
        results.append(_agreement(gate, shadowed, alpha))
    return tuple(results)


def judge_golden(
    gate: GateLimits, results: Collection[GoldenResult], pods: Collection[str]
) -> GateResult | None:
    """Return what golden samples say of all ready pods of the candidate; None when they are to be ignored.

    Args:
        gate: what is required.
        results: outcomes, of pods that answered.
        pods: names of the pods that are to take requests.
    """
    if gate.golden == "Ignore":
        return None
    known = {result.pod: result for result in results if result.pod in pods}
    bad = {"Fail"} if gate.golden == "IfPresent" else {"Fail", "Absent"}
    worst = next((known[pod] for pod in sorted(known) if known[pod].outcome in bad), None)
    passed = sum(result.outcome == "Pass" for result in known.values())
    value, limit = f"{passed} of {len(pods)} pods", "all pods" if gate.golden == "Required" else "no failure"
    if worst is not None:
        why = worst.message or (
            "the artifact brings no golden samples" if worst.outcome == "Absent" else "wrong answers"
        )
        message = f"pod {worst.pod}: {why}"
        return GateResult("goldenSamples", "Fail", value, limit, len(known), message)
    missing = len(set(pods) - known.keys())
    if missing or not pods:
        message = f"{missing} pods have not told yet" if missing else "no pod is ready yet"
        return GateResult("goldenSamples", "Inconclusive", value, limit, len(known), message)
    message = "" if passed else "the artifact brings no golden samples"
    return GateResult("goldenSamples", "Pass", value, limit, len(known), message)


def _agreement(gate: GateLimits, shadowed: Shadowed, alpha: float) -> GateResult:
    total, least = shadowed.total, gate.min_agreement
    value = _percent(agreement(shadowed)) if total.compared else ""
    if least is None:
        return GateResult("shadowAgreement", "Pass", value, "", total.compared)
    above = agreement(shadowed) < least
    evidence = disagreement_evidence(shadowed, least)
    result, message = _verdict(gate, total.compared, evidence, alpha, above=above)
    if total.incomparable and total.compared < gate.min_requests:
        message = f"{message}, {total.incomparable} cannot be compared"
    return GateResult(
        "shadowAgreement", result, value, f"at least {_percent(least)}", total.compared, message
    )


def _restarts(candidate: Totals, active: Totals | None) -> GateResult:
    """A power cut restarts the active version's pods as well; being killed for its memory is a version's own doing."""
    beyond = candidate.restarts - (active.restarts if active is not None else 0)
    value, limit = f"{candidate.restarts} restarts", f"fewer than {MAX_RESTARTS} of a pod"
    if candidate.out_of_memory:
        message = f"pod {candidate.out_of_memory} was killed for using more memory than it may"
        return GateResult("restarts", "Fail", value, limit, candidate.restarts, message)
    if beyond >= MAX_RESTARTS:
        message = f"one pod restarted {candidate.restarts} times since the step began"
        return GateResult("restarts", "Fail", value, limit, candidate.restarts, message)
    return GateResult("restarts", "Pass", value, limit, candidate.restarts)


def _errors(gate: GateLimits, candidate: Totals, active: Totals | None, alpha: float) -> GateResult:
    limit, total = gate.max_error_ratio, candidate.total
    blocks = []
    for mine, theirs in _beside(candidate, active):
        weight = _weight(mine)
        allowed = limit
        if theirs.errors > limit * theirs.requests:
            allowed = max(limit, (theirs.errors + 1) / (theirs.requests + 1))
        blocks.append((weight * mine.errors, weight * mine.requests, allowed))
    above = _ratio(total) > limit
    result, message = _verdict(gate, total.requests, ratio_evidence(blocks), alpha, above=above)
    shown = f"at most {_percent(limit)}"
    return GateResult("errors", result, _percent(_ratio(total)), shown, total.requests, message)


def _errors_against_active(gate: GateLimits, candidate: Totals, active: Totals, alpha: float) -> GateResult:
    total, other = candidate.total, active.all
    if active.concurrent:
        pairs = []
        for mine, theirs in _beside(candidate, active):
            weight = min(_weight(mine), _weight(theirs))
            pairs.append(
                (
                    weight * mine.errors,
                    weight * mine.requests,
                    weight * theirs.errors,
                    weight * theirs.requests,
                )
            )
        evidence = difference_evidence(pairs)
    else:
        # Half of the error goes into not knowing the active version's own ratio.
        bound = upper_bound(other.errors, other.requests, alpha / 2)
        blocks = [(_weight(one) * one.errors, _weight(one) * one.requests, bound) for one in candidate.rounds]
        evidence = ratio_evidence(blocks) - math.log(2)
    enough = _fewer(gate, total.requests, other.requests)
    result, message = _verdict(gate, enough, evidence, alpha, above=False)
    limit = f"{_percent(_ratio(other))} of the active version"
    return GateResult("errorsAgainstActive", result, _percent(_ratio(total)), limit, total.requests, message)


def _latency(
    gate: GateLimits, seconds: float, candidate: Totals, active: Totals | None, alpha: float
) -> GateResult:
    total = candidate.total
    threshold = total.bound_above(seconds)
    limit = f"p99 at most {_time(seconds if threshold is None else threshold)}"
    if threshold is None:
        message = (
            f"the server's histogram ends at {_time(max(total.bounds, default=0.0))}"
            if total.timed
            else f"0 of {gate.min_requests} requests"
        )
        return GateResult("latency", "Inconclusive", _shown(total), limit, total.timed, message)
    if active is not None and active.concurrent:
        shares = [
            (share, allowed if theirs > P99 else P99)
            for share, allowed, theirs in _shares(candidate, active, threshold)
        ]
    else:
        shares = [(one.slower(threshold), P99) for one in _spells(candidate.rounds)]
    above = total.slower(threshold) > P99
    result, message = _verdict(gate, total.timed, share_evidence(shares), alpha, above=above)
    return GateResult("latency", result, _shown(total), limit, total.timed, message)


def _slower(
    gate: GateLimits, candidate: Totals, active: Totals, alpha: float, name: str, part: float
) -> GateResult:
    """Compare one quantile with the active version's: ``part`` of the requests are slower than it."""
    total, other = candidate.total, active.all
    enough = _fewer(gate, total.timed, other.timed)
    usual = other.quantile(1 - part)
    threshold = None
    if usual is not None:
        threshold = total.bound_above(usual * (1 + gate.max_latency_increase), other.bounds)
    if threshold is None:
        message = f"{total.timed} requests, and {other.timed} of the active version, of {gate.min_requests}"
        if total.timed and other.timed >= gate.min_requests:
            message = "the limit lies beyond the end of the server's histogram"
        return GateResult(name, "Inconclusive", _shown(total, part), "", total.timed, message)
    usual_share = other.slower(threshold)
    if active.concurrent:
        shares = [(share, allowed) for share, allowed, _ in _shares(candidate, active, threshold, part)]
        evidence = share_evidence(shares)
    else:
        bound = upper_bound(other.timed * usual_share, other.timed, alpha / 2)
        allowed = min(1.0, part + bound)
        shares = [(one.slower(threshold), allowed) for one in _spells(candidate.rounds)]
        evidence = share_evidence(shares) - math.log(2)
    above = total.slower(threshold) > min(2 * part, (1 + part) / 2) + usual_share
    result, message = _verdict(gate, enough, evidence, alpha, above=above)
    word = "p99" if part == P99 else "median"
    limit = f"{word} at most {_time(threshold)}; of the active version {_shown(other, part)}"
    return GateResult(name, result, _shown(total, part), limit, total.timed, message)


def _beside(candidate: Totals, active: Totals | None) -> Iterator[tuple[Counts, Counts]]:
    """Yield each round of the candidate with what the active version answered meanwhile."""
    if active is None or not active.concurrent:
        yield from ((mine, Counts()) for mine in candidate.rounds)
    else:
        yield from zip(candidate.rounds, active.rounds, strict=True)


def _shares(
    candidate: Totals, active: Totals, threshold: float, part: float = P99
) -> Iterator[tuple[float, float, float]]:
    """Yield for stretches of time the candidate's share of slow requests, what it may be, and the active version's share.

    It may be ``part``, and what the active version had in the same stretch. With k slow ones of its n, (k + 1) / (n + 1) is
    a yardstick of which the candidate's share is on average no more than once, if both have the same.
    """
    slow = total = other_slow = other_total = 0.0
    rounds = list(_beside(candidate, active))
    for last, (mine, theirs) in enumerate(rounds, start=1 - len(rounds)):
        slow += mine.slower(threshold) * mine.timed
        total += mine.timed
        other_slow += theirs.slower(threshold) * theirs.timed
        other_total += theirs.timed
        if total and (other_total >= BLOCK or last == 0):
            allowed = min(1.0, part + (other_slow + 1) / (other_total + 1))
            yield slow / total, allowed, other_slow / max(1.0, other_total)
            slow = total = other_slow = other_total = 0.0


def _spells(rounds: Iterable[Counts]) -> Iterator[Counts]:
    """Yield rounds put together to stretches of ``SPELL`` seconds; what is left over waits until it is one."""
    spell = Counts()
    for one in rounds:
        spell += one
        if spell.seconds >= SPELL:
            if spell.timed:
                yield spell
            spell = Counts()


def _ratio(counts: Counts) -> float:
    return counts.errors / counts.requests if counts.requests else 0.0


def _verdict(
    gate: GateLimits, requests: int, evidence: float, alpha: float, *, above: bool
) -> tuple[Verdict, str]:
    if evidence >= -math.log(alpha):
        return "Fail", "worse beyond chance"
    if requests < gate.min_requests:
        return "Inconclusive", f"{requests} of {gate.min_requests} requests"
    if above:
        return "Inconclusive", _ABOVE
    if evidence >= SUSPICION:
        return "Inconclusive", _LOOKS_WORSE
    return "Pass", ""


def _fewer(gate: GateLimits, mine: int, theirs: int) -> int:
    """Return the number of requests that decides whether there are enough to compare."""
    return min(mine, theirs) if theirs < gate.min_requests else mine


def _weight(one: Counts) -> float:
    """Return what each request counts for: of a busy second, no more than ``ERRORS_A_SECOND`` together."""
    most = ERRORS_A_SECOND * max(one.seconds, 1.0)
    return min(1.0, most / one.requests) if one.requests else 1.0


def _shown(counts: Counts, part: float = P99) -> str:
    value = counts.quantile(1 - part)
    if value is None:
        return "more than " + _time(max(counts.bounds, default=0.0)) if counts.timed else ""
    return _time(value)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.2f} %"


def _time(seconds: float) -> str:
    if seconds < _MILLISECOND:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < _SECOND else f"{seconds:.3g} s"
