"""Simulated traffic of two versions, second by second: what the gate's tests and its benchmark look at.

Latencies are not independent here, as they are not in life: seconds come in which the whole machine is slow, and moments in
which one version's pod stands still.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from edgemodel.rollout.evidence import CandidateEvidence, Ledger, Sample
from inference_server.metrics import REQUEST_SECONDS

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Version:
    """How one version answers."""

    median: float = 0.004
    """Seconds."""
    spread: float = 0.3
    """Standard deviation of the latency's logarithm."""
    errors: float = 0.0
    pauses: float = 0.0
    """Probability that a pod stands still for a part of a second."""
    pause: float = 0.2
    """Which part."""

    def times(self, factor: float) -> "Version":
        """Return one that takes so many times as long."""
        return replace(self, median=self.median * factor)


@dataclass(frozen=True)
class Site:
    """What the requests, and the machine, are like."""

    name: str
    rate: float = 50.0
    """Requests a second of both versions together."""
    bursts: float = 0.0
    """Probability that a second brings ten times as many."""
    shocks: float = 0.0
    """Probability that a spell begins in which the whole machine is slow, or errs."""
    shock_seconds: int = 5
    shock_factor: float = 8.0
    shock_errors: float = 0.0
    like: Version = field(default_factory=Version)
    """How its version answers."""


@dataclass
class _Pod:
    """The counters of one version."""

    requests: int = 0
    errors: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(REQUEST_SECONDS) + 1))

    def sample(self) -> Sample:
        below, so_far = [], 0
        for count in self.buckets[:-1]:
            so_far += count
            below.append(so_far)
        return Sample(self.requests, self.errors, self.requests, REQUEST_SECONDS, tuple(below), 1.0)


def rollout(
    site: Site,
    candidate: Version,
    random_: random.Random,
    *,
    weight: int,
    seconds: int,
    before: int = 10,
) -> Iterator[CandidateEvidence]:
    """Yield the evidence after each second of one step.

    Args:
        site: traffic, machine, and what serves.
        candidate: the version that is tried.
        random_: all that is random comes from it.
        weight: the candidate's share, in percent.
        seconds: length of the step.
        before: seconds for which the active version is seen before the step.
    """
    ledger = Ledger("sha256:candidate")
    pods = {"candidate": _Pod(), "active": _Pod()}
    shock = 0
    ledger.begin("before", 0, START)
    for second in range(-before, seconds + 1):
        ledger.add(
            {"candidate": {"c": pods["candidate"].sample()}, "active": {"a": pods["active"].sample()}}, 1.0
        )
        if second == 0:
            ledger.begin("step", weight, START)
        if second > 0:
            yield ledger.evidence()
        shock = shock - 1 if shock else (site.shock_seconds if random_.random() < site.shocks else 0)
        rate = site.rate * (10 if random_.random() < site.bursts else 1)
        share = weight / 100 if second >= 0 else 0.0
        for pod, version, part in (
            (pods["candidate"], candidate, share),
            (pods["active"], site.like, 1 - share),
        ):
            _serve(pod, version, site, poisson(rate * part, random_), random_, shocked=shock > 0)


def _serve(
    pod: _Pod, version: Version, site: Site, requests: int, random_: random.Random, *, shocked: bool
) -> None:
    stands = random_.random() < version.pauses
    mean = math.log(version.median * (site.shock_factor if shocked else 1))
    errors = max(version.errors, site.shock_errors if shocked else 0.0)
    for _ in range(requests):
        pod.requests += 1
        pod.errors += random_.random() < errors
        seconds = math.exp(random_.gauss(mean, version.spread))
        if stands and random_.random() < version.pause:
            seconds += version.pause * random_.random()
        pod.buckets[bisect_left(REQUEST_SECONDS, seconds)] += 1


def poisson(mean: float, random_: random.Random) -> int:
    """Draw from a Poisson distribution; for large means from the normal one that it is like."""
    if mean > 50:
        return max(0, round(random_.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), random_.random(), 0
    while product > limit:
        product *= random_.random()
        count += 1
    return count
