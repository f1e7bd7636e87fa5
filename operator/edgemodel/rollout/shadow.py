"""What the gateway's pods counted of a candidate's copies of requests: from ``/metrics`` to what came of them in a step.

Promises: a counter that begins anew, a pod of the gateway that goes and a reading that is missing lose at most what happened
in between; nothing is counted twice. Memory is bounded. What is read is bounded, and checked, though the gateway is ours.

No clock and no I/O. Leaves to others: fetching (``controller.evidence``), judging (``gate``).
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

MAX_SERIES = 4096
MAX_ROUNDS = 256
"""Rounds that are kept apart; more are put together two by two."""
_MAX_COUNT = 2**53
_LINE = re.compile(
    r'^edgemodel_gateway_shadow_requests_total\{digest="([^"\\\n]*)",name="([^"\\\n]*)",namespace="([^"\\\n]*)",'
    r'outcome="([a-z]*)"\} ([0-9.eE+-]{1,32})$',
    re.MULTILINE,
)
_STARTED = re.compile(r"^process_start_time_seconds ([0-9.eE+-]{1,32})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Trial:
    """The candidate of one model."""

    namespace: str
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Copies:
    """What came of copies."""

    agree: int = 0
    differ: int = 0
    failed: int = 0
    """The candidate answered with a server error, which its own counters tell, too."""
    unanswered: int = 0
    """The candidate gave no answer, which nothing else tells."""
    incomparable: int = 0
    dropped: int = 0
    """No copy was made."""
    seconds: float = 0.0
    """In how much time."""

    def __add__(self, other: "Copies") -> "Copies":
        return Copies(
            self.agree + other.agree,
            self.differ + other.differ,
            self.failed + other.failed,
            self.unanswered + other.unanswered,
            self.incomparable + other.incomparable,
            self.dropped + other.dropped,
            self.seconds + other.seconds,
        )

    @property
    def compared(self) -> int:
        """Answers that agreed or did not."""
        return self.agree + self.differ

    @property
    def any(self) -> bool:
        """Say whether there was any request."""
        return bool(self.compared + self.failed + self.unanswered + self.incomparable + self.dropped)


@dataclass(frozen=True, slots=True)
class Shadowed:
    """All copies of a candidate since the rollout's step began."""

    rounds: tuple[Copies, ...] = ()
    total: Copies = Copies()


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one pod of the gateway."""

    copies: Mapping[Trial, Copies] = field(default_factory=dict)
    started: str = ""
    """When its process started, as it writes it."""


def read_copies(text: str) -> Reading:
    """Read a gateway's counters; lines that cannot be are passed over."""
    counts: dict[Trial, dict[str, int]] = {}
    for number, found in enumerate(_LINE.finditer(text)):
        digest, name, namespace, outcome, value = found.groups()
        try:
            count = float(value)
        except ValueError:
            continue
        if number >= MAX_SERIES or not (0 <= count <= _MAX_COUNT and count == int(count)):
            continue
        if outcome in ("agree", "differ", "failed", "unanswered", "incomparable", "dropped"):
            counts.setdefault(Trial(namespace, name, digest), {})[outcome] = int(count)
    started = _STARTED.search(text)
    return Reading({trial: Copies(**found) for trial, found in counts.items()}, started[1] if started else "")


class ShadowLedger:
    """Adds up a candidate's copies over all pods of the gateway and over one step."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self._step: Hashable = None
        self._last: dict[str, tuple[str, Copies]] = {}
        self._rounds: list[Copies] = []
        self._total = Copies()

    def begin(self, step: Hashable) -> None:
        """Say which step it is; another one than before begins to count anew."""
        if step != self._step:
            self._step, self._rounds, self._total = step, [], Copies()

    def add(self, readings: Mapping[str, Reading | None], seconds: float) -> Copies:
        """Add one round; return what came new.

        Args:
            readings: of each pod of the gateway, by uid; None where it did not answer.
            seconds: since the round before.
        """
        new = Copies()
        for uid in self._last.keys() - readings.keys():
            del self._last[uid]
        for uid, reading in readings.items():
            if reading is None:
                continue
            found = reading.copies.get(self.trial)
            if found is None:
                self._last.pop(uid, None)
                continue
            before = self._last.get(uid)
            self._last[uid] = (reading.started, found)
            if before is not None:
                new += _difference(found, before[1] if before[0] == reading.started else Copies())
        if new.any:
            new = Copies(
                new.agree, new.differ, new.failed, new.unanswered, new.incomparable, new.dropped, seconds
            )
            self._rounds.append(new)
            self._total += new
            if len(self._rounds) > MAX_ROUNDS:
                pairs = range(0, len(self._rounds), 2)
                self._rounds = [sum(self._rounds[at : at + 2], Copies()) for at in pairs]
        return new

    def seen(self) -> Shadowed:
        """Return what is known of the step."""
        return Shadowed(tuple(self._rounds), self._total)


def _difference(later: Copies, earlier: Copies) -> Copies:
    """Return what came between two readings; all of the later one if the counters began anew."""
    since = Copies(
        later.agree - earlier.agree,
        later.differ - earlier.differ,
        later.failed - earlier.failed,
        later.unanswered - earlier.unanswered,
        later.incomparable - earlier.incomparable,
        later.dropped - earlier.dropped,
    )
    counts = (since.agree, since.differ, since.failed, since.unanswered, since.incomparable, since.dropped)
    return since if min(counts) >= 0 else later
