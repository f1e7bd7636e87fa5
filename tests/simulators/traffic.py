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
from inference_server.telemetry.metrics import REQUEST_SECONDS

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
    spells: float = 0.0
    """Probability that a spell begins in a second, in which the whole machine is slow, or errs."""
    spell_seconds: int = 4
    spell_factor: float = 8.0
    spell_errors: float = 0.0
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


CANARY = ((10, 20), (50, 20), (100, 20))
SURGE = ((100, 30),)
SHARED = ((10, 30), (50, 30))
"""Weights in percent, and seconds; the last: only steps in which both versions take requests."""
ALIKE = 1000
"""Rollouts of a version against itself."""
SITES = (
    Site("quiet", rate=2),
    Site("steady", rate=20),
    Site("busy", rate=100),
    Site("bursts of ten times the traffic", rate=8, bursts=0.1),
    Site("the machine has slow spells", rate=20, spells=0.02),
    Site("the machine errs for spells", rate=20, spells=0.005, spell_errors=0.3),
    Site("pods stand still for moments", rate=40, like=Version(pauses=0.05)),
    Site("pods stand still for whole seconds", rate=20, like=Version(pauses=0.005, pause=1.0)),
    Site("latency has a heavy tail", rate=20, like=Version(spread=1.2)),
    Site("errs, within what is allowed", rate=40, like=Version(errors=0.007)),
)


def alike(number: int) -> tuple[Site, tuple[tuple[int, int], ...]]:
    """Return the site and the steps of one of the rollouts of a version against itself.

    Where the machine errs for all, there are only steps with both versions: nothing tells such errors from those of a
    candidate that is alone, and the user's limit holds.
    """
    site = SITES[number % len(SITES)]
    if site.spell_errors:
        return site, SHARED
    return site, CANARY if number % 4 else SURGE


def rollout(
    site: Site,
    candidate: Version,
    seed: str,
    *,
    steps: tuple[tuple[int, int], ...],
    before: int = 30,
) -> Iterator[tuple[int, CandidateEvidence]]:
    """Yield the candidate's weight and the evidence after each second.

    Args:
        site: traffic, machine, and what serves.
        candidate: the version that is tried.
        seed: all that is random comes of it.
        steps: weights and lengths.
        before: seconds for which the active version is seen before the candidate takes requests: it loads meanwhile.
    """
    random_ = random.Random(seed)
    ledger = Ledger("sha256:candidate")
    pods = {"candidate": _Pod(), "active": _Pod()}
    machine = _Machine(site, random_)
    for number, (weight, seconds) in enumerate(((0, before), *steps)):
        ledger.begin(number, weight, START)
        for _ in range(seconds):
            machine.tick()
            rate = machine.rate()
            for pod, version, part in (
                (pods["candidate"], candidate, weight / 100),
                (pods["active"], site.like, 1 - weight / 100),
            ):
                _serve(pod, version, machine, poisson(rate * part, random_))
            read = {role: {role: pod.sample()} for role, pod in pods.items()}
            ledger.add(read, 1.0)  # type: ignore[arg-type]
            if number:
                yield weight, ledger.evidence()


class _Machine:
    """What both versions suffer together."""

    def __init__(self, site: Site, random_: random.Random) -> None:
        self.site = site
        self.random = random_
        self.spell = 0

    def tick(self) -> None:
        """Let a second pass."""
        begins = self.random.random() < self.site.spells
        self.spell = self.spell - 1 if self.spell else (self.site.spell_seconds if begins else 0)

    def rate(self) -> float:
        """Return the requests that come in this second, on average."""
        return self.site.rate * (10 if self.random.random() < self.site.bursts else 1)


def _serve(pod: _Pod, version: Version, machine: _Machine, requests: int) -> None:
    site, random_, slow = machine.site, machine.random, machine.spell > 0
    stands = random_.random() < version.pauses
    mean = math.log(version.median * (site.spell_factor if slow else 1))
    errors = max(version.errors, site.spell_errors if slow else 0.0)
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
