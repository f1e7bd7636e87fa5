"""What was seen of a candidate and of the active version beside it: from single readings of counters to totals.

Promises

* Counters that start anew, pods that are replaced and readings that are missing lose at most what happened in between;
  nothing is counted twice and nothing is ever negative.
* Both versions are always read up to the same moment: a round in which one pod did not answer waits for it (counters lose
  nothing by that), unless the pod stays silent. So a moment in which the whole machine stood still is in both or in neither.
* Memory is bounded, whatever the length of a step.

No clock and no I/O. Leaves to others: reading (``server_metrics``, ``controller.evidence``), judging (``gate``).
"""

from bisect import bisect_left
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Literal

from edgemodel.rollout.shadow import Shadowed

PATIENCE = 3
"""Rounds that wait for a pod that does not answer."""
MAX_ROUNDS = 256
"""Rounds that are kept apart; more are put together two by two, so that old and new stay equally long."""

Role = Literal["candidate", "active"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of one pod's counters for one version."""

    requests: int = 0
    errors: int = 0
    """Requests that were answered 5xx."""
    timed: int = 0
    """Requests in the histogram."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of its buckets in seconds, ascending, without infinity."""
    below: tuple[int, ...] = ()
    """For each bound, the requests that took no longer."""
    started: float | None = None
    """When the server's process started; another value means that all counters began anew."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was answered in a stretch of time."""

    requests: int = 0
    errors: int = 0
    timed: int = 0
    bounds: tuple[float, ...] = ()
    below: tuple[int, ...] = ()
    seconds: float = 0.0
    """How long that took."""

    def __add__(self, other: "Counts") -> "Counts":
        bounds, mine, theirs = self.bounds, self.below, other.below
        if not self.timed:
            bounds, mine = other.bounds, (0,) * len(other.below)
        elif not other.timed:
            theirs = (0,) * len(mine)
        elif self.bounds != other.bounds:
            # Servers of two releases: only bounds that both know tell anything.
            bounds = tuple(sorted(set(self.bounds) & set(other.bounds)))
            mine = tuple(self.below[self.bounds.index(bound)] for bound in bounds)
            theirs = tuple(other.below[other.bounds.index(bound)] for bound in bounds)
        return Counts(
            self.requests + other.requests,
            self.errors + other.errors,
            self.timed + other.timed,
            bounds,
            tuple(map(int.__add__, mine, theirs)),
            self.seconds + other.seconds,
        )

    def slower(self, bound: float) -> float:
        """Return the share of requests that took longer than ``bound``, or than the next bound of the histogram."""
        index = bisect_left(self.bounds, bound)
        if not self.timed or index == len(self.bounds):
            return 0.0
        return 1.0 - self.below[index] / self.timed

    def bound_above(self, seconds: float, also: tuple[float, ...] | None = None) -> float | None:
        """Return the smallest bound of at least ``seconds`` (one that is in ``also``, too); None beyond the last."""
        for bound in self.bounds[bisect_left(self.bounds, seconds) :]:
            if also is None or bound in also:
                return bound
        return None

    def quantile(self, q: float) -> float | None:
        """Return the seconds that a share ``q`` of the requests did not exceed, between bounds by a straight line.

        None when there is nothing, or it lies beyond the last bound.
        """
        if not self.timed:
            return None
        rank, before, floor = q * self.timed, 0, 0.0
        for bound, below in zip(self.bounds, self.below, strict=True):
            if below >= rank and below > before:
                return floor + (bound - floor) * max(0.0, rank - before) / (below - before)
            before, floor = below, bound
        return None


@dataclass(frozen=True)
class Totals:
    """What one version answered since the rollout's step began."""

    rounds: tuple[Counts, ...] = ()
    """One after the other; those of the candidate and of the active version cover the same stretches of time."""
    before: Counts = Counts()
    """Of the active version only: since the candidate appeared and before the step began."""
    concurrent: bool = False
    """Of the active version only: it takes requests in this step, beside the candidate."""
    restarts: int = 0
    """How often the server of one pod has ended since the step began, in the pod that is worst."""
    out_of_memory: str = ""
    """Name of a pod that was killed for its memory since the step began."""

    summed: Counts | None = None
    """The rounds' sum, where it is known already."""

    @cached_property
    def total(self) -> Counts:
        """Everything since the step began."""
        return self.summed if self.summed is not None else sum(self.rounds, Counts())

    @cached_property
    def all(self) -> Counts:
        """Everything that is known."""
        return self.before + self.total


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """How one pod of the candidate did on the artifact's golden samples."""

    pod: str
    outcome: Literal["Pass", "Fail", "Absent"]
    message: str = ""


@dataclass(frozen=True, slots=True)
class CandidateEvidence:
    """All that is known of how a candidate does."""

    digest: str
    """Of which candidate."""
    candidate: Totals = Totals()
    active: Totals | None = None
    """None when no version serves beside or before it."""
    golden: tuple[GoldenResult, ...] = ()
    shadowed: Shadowed | None = None
    """What came of copies of requests; None when none are made."""
    since: datetime | None = None
    """Since when this process has watched the step, which may have begun before the process; None if it is not said."""


@dataclass(frozen=True, slots=True)
class Life:
    """What a pod's status tells of its server's ends."""

    name: str
    ends: int = 0
    """How often it has ended, started again or not."""
    out_of_memory: bool = False
    """The last time for want of memory."""


@dataclass(slots=True)
class _Version:
    """What is kept of one of the two versions."""

    last: dict[str, Sample] = field(default_factory=dict)
    rounds: list[Counts] = field(default_factory=list)
    total: Counts = Counts()
    before: Counts = Counts()
    lives: dict[str, Life] = field(default_factory=dict)
    at_start: dict[str, int] = field(default_factory=dict)

    def add_up(self, samples: Mapping[str, Sample], seconds: float) -> Counts:
        """Return what was answered since the last round; a pod's first reading is only a beginning."""
        counts = Counts(seconds=seconds)
        for uid, sample in samples.items():
            earlier = self.last.get(uid)
            self.last[uid] = sample
            if earlier is not None:
                counts += difference(earlier, sample)
        return counts

    def restarts(self, uid: str) -> int:
        return max(0, self.lives[uid].ends - self.at_start.get(uid, 0))


class Ledger:
    """Keeps the evidence of one candidate against one active version; a new candidate has a new ledger."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.since: datetime | None = None
        """Since when the step has been watched."""
        self._step: Hashable = None
        self._weight = 0
        self._versions: dict[Role, _Version] = {"candidate": _Version(), "active": _Version()}
        self._silent: dict[str, int] = {}
        self._pending = 0.0
        self._unanswered = 0
        self._began = False

    def begin(self, step: Hashable, weight: int, now: datetime) -> None:
        """Say which step it is; another one than before begins to count anew.

        Args:
            step: whatever tells steps apart.
            weight: the candidate's share of requests, in percent.
            now: since when it is watched, if it is another one.
        """
        self._weight = weight
        if self._began and step == self._step:
            return
        self._step, self._began, self.since = step, True, now
        self._unanswered = 0
        active = self._versions["active"]
        active.before += active.total
        for version in self._versions.values():
            version.rounds.clear()
            version.total = Counts()
            version.at_start = {uid: life.ends for uid, life in version.lives.items()}

    def see(self, role: Role, lives: Mapping[str, Life]) -> None:
        """Note all pods of a version, by uid: gone ones are forgotten."""
        version = self._versions[role]
        first = not version.lives
        for uid in version.last.keys() - lives.keys():
            del version.last[uid]
        version.lives = dict(lives)
        if first:
            version.at_start = {uid: life.ends for uid, life in lives.items()}

    def add(
        self, samples: Mapping[Role, Mapping[str, Sample | None]], seconds: float, *, unanswered: int = 0
    ) -> bool:
        """Add one round of readings; say whether the candidate answered anything new.

        Args:
            samples: for each version, the reading of each pod that should answer, by uid; None where it did not.
            seconds: since the round before.
            unanswered: copies of requests that the candidate gave no answer to since then, which no pod counts.
        """
        self._pending += seconds
        self._unanswered += unanswered
        read = {uid: sample for pods in samples.values() for uid, sample in pods.items()}
        self._silent = {uid: self._silent.get(uid, 0) + 1 for uid, sample in read.items() if sample is None}
        if any(rounds < PATIENCE for rounds in self._silent.values()):
            return False
        counts = {
            role: version.add_up(
                {uid: sample for uid, sample in samples.get(role, {}).items() if sample is not None},
                self._pending,
            )
            for role, version in self._versions.items()
        }
        counts["candidate"] += Counts(self._unanswered, self._unanswered)
        self._pending, self._unanswered = 0.0, 0
        if not any(one.requests or one.timed for one in counts.values()):
            return False
        for role, version in self._versions.items():
            version.rounds.append(counts[role])
            version.total += counts[role]
            if len(version.rounds) > MAX_ROUNDS:
                version.rounds = [
                    sum(version.rounds[at : at + 2], Counts()) for at in range(0, len(version.rounds), 2)
                ]
        return bool(counts["candidate"].requests or counts["candidate"].timed)

    def evidence(
        self, golden: tuple[GoldenResult, ...] = (), shadowed: Shadowed | None = None
    ) -> CandidateEvidence:
        """Return the evidence as it stands."""
        active = self._versions["active"]
        known = bool(active.lives or active.before.requests or active.total.requests)
        return CandidateEvidence(
            digest=self.digest,
            candidate=self._totals("candidate"),
            active=self._totals("active") if known else None,
            golden=golden,
            shadowed=shadowed,
            since=self.since,
        )

    def _totals(self, role: Role) -> Totals:
        version = self._versions[role]
        killed = sorted(
            life.name for uid, life in version.lives.items() if life.out_of_memory and version.restarts(uid)
        )
        return Totals(
            rounds=tuple(version.rounds),
            before=version.before,
            concurrent=role == "active" and self._weight < 100,
            restarts=max(map(version.restarts, version.lives), default=0),
            out_of_memory=killed[0] if killed else "",
            summed=version.total,
        )


def difference(earlier: Sample, later: Sample) -> Counts:
    """Return what was answered between two readings of one pod; all of the later one if the counters began anew.

    They did if any of them fell, or if the differences do not fit together: more errors than requests, a bucket of more than
    all.
    """
    restarted = None not in (earlier.started, later.started) and earlier.started != later.started
    if not restarted and (later.bounds == earlier.bounds or not earlier.timed):
        before = earlier.below if earlier.timed else (0,) * len(later.below)
        since = Counts(
            later.requests - earlier.requests,
            later.errors - earlier.errors,
            later.timed - earlier.timed,
            later.bounds,
            tuple(map(int.__sub__, later.below, before)),
        )
        if 0 <= since.errors <= since.requests and _ascending((0, *since.below, since.timed)):
            return since
    return Counts(later.requests, later.errors, later.timed, later.bounds, later.below)


def _ascending(numbers: tuple[int, ...]) -> bool:
    return all(one <= next_one for one, next_one in pairwise(numbers))
