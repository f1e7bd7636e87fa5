"""How often the gate takes back a version that is no worse, and how soon it finds one that is.

A thousand simulated rollouts of a version against itself, judged every second, then rollouts of worse ones. Peer: the test
that most dashboards make, two shares against each other at the same level (a z-test, fixed sample), repeated at each look on
the very same traffic.
"""

import math
import statistics
import time
from dataclasses import replace

from benchmarks.figures import Report
from edgemodel.rollout.evidence import CandidateEvidence, Counts
from edgemodel.rollout.gate import ALPHA, P99, GateLimits, judge, overall
from edgemodel.rollout.server_metrics import read_sample
from inference_server.telemetry.metrics import Metrics
from tests.simulators.traffic import ALIKE, SITES, SURGE, Site, Version, alike, rollout

TRIES = 20
GOOD = Version()
WORSE = {
    "2_percent_errors": replace(GOOD, errors=0.02),
    "5_percent_errors": replace(GOOD, errors=0.05),
    "all_errors": replace(GOOD, errors=1.0),
    "slower_by_20_percent": GOOD.times(1.2),
    "slower_2_times": GOOD.times(2),
    "slower_3_times": GOOD.times(3),
    "slower_5_times": GOOD.times(5),
}
RATES = (500, 50, 5)
WEIGHTS = (10, 50, 100)
SECONDS = 60
_Z = statistics.NormalDist().inv_cdf(1 - ALPHA / 4)


def peer_fails(limits: GateLimits, evidence: CandidateEvidence) -> bool:
    """Whether a z-test of two shares, of errors or of slow requests, says worse."""
    mine, theirs = evidence.candidate.total, evidence.active.all if evidence.active else Counts()
    if min(mine.requests, theirs.requests) < limits.min_requests:
        return False
    usual = theirs.quantile(1 - P99)
    threshold = theirs.bound_above(usual * (1 + limits.max_latency_increase)) if usual else None
    pairs: list[tuple[float, float]] = [(mine.errors, theirs.errors)]
    if threshold is not None:
        pairs.append((mine.slower(threshold) * mine.timed, theirs.slower(threshold) * theirs.timed))
    return any(_z(one, mine.requests, other, theirs.requests) > _Z for one, other in pairs)


def _z(bad: float, total: float, other_bad: float, other_total: float) -> float:
    pooled = (bad + other_bad) / (total + other_total)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / total + 1 / other_total))
    return (bad / total - other_bad / other_total) / spread if spread else 0.0


def false_alarms(report: Report) -> None:
    """Count rollouts of identical versions that are taken back."""
    ours: dict[str, int] = {}
    peers: dict[str, int] = {}
    held, took, looks = 0, 0.0, 0
    for number in range(ALIKE):
        site, steps = alike(number)
        limits = GateLimits(steps=len(steps))
        ours_failed = peer_failed = False
        verdict = "Inconclusive"
        for _, evidence in rollout(site, site.like, f"alike {number}", steps=steps):
            if not ours_failed:
                began = time.perf_counter()
                verdict = overall(judge(limits, evidence.candidate, evidence.active))
                took, looks = took + time.perf_counter() - began, looks + 1
                ours_failed = verdict == "Fail"
            peer_failed = peer_failed or peer_fails(limits, evidence)
        ours[site.name] = ours.get(site.name, 0) + ours_failed
        peers[site.name] = peers.get(site.name, 0) + peer_failed
        held += verdict == "Inconclusive"
    report.add("false_alarms_per_1000", sum(ours.values()), "rollouts", "<=", 1000 * ALPHA)
    report.add("false_alarms_of_z_test_per_1000", sum(peers.values()), "rollouts")
    report.add("inconclusive_at_the_end_per_1000", held, "rollouts")
    report.add("judging_once", 1000 * took / looks, "ms", "<=", 5)
    report.notes["false_alarms_by_site"] = ours
    report.notes["false_alarms_of_z_test_by_site"] = peers


def outages(report: Report) -> None:
    """Count rollouts taken back for an outage of the whole machine, while the candidate takes all requests."""
    site = next(site for site in SITES if site.spell_errors)
    taken_back = 0
    for number in range(ALIKE // 10):
        seen = rollout(site, site.like, f"alone {number}", steps=SURGE)
        taken_back += any(
            overall(judge(GateLimits(), evidence.candidate, evidence.active)) == "Fail"
            for _, evidence in seen
        )
    report.notes["taken_back_for_an_outage_while_alone"] = (
        f"{taken_back} of {ALIKE // 10}: in each second an outage of {site.spell_seconds} s begins with probability "
        f"{site.spells}, in which {100 * site.spell_errors:g} % fail; a step of {SURGE[0][1]} s"
    )


def detection(report: Report) -> None:
    """Measure how soon worse versions are found."""
    table: dict[str, str] = {}
    for rate in RATES:
        for weight in WEIGHTS:
            for name, version in WORSE.items():
                found: list[tuple[int, int]] = []
                for number in range(TRIES):
                    seen = rollout(
                        Site("any", rate=rate), version, f"{name} {number}", steps=((weight, SECONDS),)
                    )
                    for second, (_, evidence) in enumerate(seen, start=1):
                        results = judge(GateLimits(steps=3), evidence.candidate, evidence.active)
                        if overall(results) == "Fail":
                            found.append((second, evidence.candidate.total.requests))
                            break
                times = [second for second, _ in found]
                table[f"{name}, {rate} requests/s, {weight} %"] = (
                    f"{len(found)} of {TRIES}, median {statistics.median(times):g} s, worst {max(times)} s, "
                    f"{statistics.median(count for _, count in found):g} requests"
                    if found
                    else f"0 of {TRIES} in {SECONDS} s"
                )
                if (name, rate, weight) == ("5_percent_errors", 500, 50):
                    report.add("seconds_to_find_5_percent_errors", statistics.median(times), "s", "<=", 2)
                if (name, rate, weight) == ("slower_5_times", 500, 10):
                    report.add("seconds_to_find_5_times_slower", statistics.median(times), "s", "<=", 5)
    report.notes["detection"] = table


def reading(report: Report) -> None:
    """Measure what reading one pod's metrics costs, without the request."""
    metrics = Metrics()
    for code in ("200", "400", "500"):
        metrics.requests.labels("detector", "1.4.0", "http", code).inc(7)
    metrics.request_duration.labels("detector", "1.4.0", "http").observe(0.003)
    text, times = metrics.render().decode(), []
    for _ in range(200):
        began = time.perf_counter()
        read_sample(text, "detector", "1.4.0")
        times.append(time.perf_counter() - began)
    report.add("reading_one_pods_metrics", 1000 * statistics.median(times), "ms", "<=", 2)


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("gate")
    reading(report)
    false_alarms(report)
    outages(report)
    detection(report)
    for what, how in report.notes["detection"].items():
        print(f"bench: gate {what}: {how}")
    return report.finish()
