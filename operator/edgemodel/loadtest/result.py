"""What is asked of a server, and what came of it. Pure.

A closed loop is a number of clients of which each sends its next request when it has the answer to the last: it finds out
how much a server can do, and slows down with it. An open loop sends at a rate, as independent callers do, whether or not
answers have come, and its latency counts from the moment at which a request was due: what waits in a queue at the client
because the server has stalled is waiting that callers notice ("coordinated omission" is what leaving it out is called).
"""

from collections import Counter
from dataclasses import dataclass, field

from edgemodel.loadtest.histogram import Histogram

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True, slots=True)
class Closed:
    """So many clients, each with one request out at a time."""

    concurrency: int


@dataclass(frozen=True, slots=True)
class Open:
    """So many requests a second.

    Attributes:
        rate: requests a second.
        connections: most at a time.
        random: they come at random moments (a Poisson process), not at even ones.
    """

    rate: float
    connections: int = 256
    random: bool = False


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a load goes on.

    Attributes:
        warm_up: seconds whose answers are not counted.
        seconds: of what is counted; also with ``requests`` the longest that it may take.
        requests: how many are counted; None is as many as the time allows.
        timeout: seconds after which a request without an answer counts as failed.
    """

    warm_up: float = 1.0
    seconds: float = 10.0
    requests: int | None = None
    timeout: float = 10.0


@dataclass(slots=True)
class Outcome:
    """What came of one load.

    Attributes:
        load: what was asked.
        latency: of good answers (HTTP's status 200, gRPC's OK), and of requests that were given up at the timeout, each
            with all that it waited. Other answers are no part of it: a refusal is quick, and would flatter.
        errors: how many by kind: ``HTTP 503``, ``gRPC UNAVAILABLE``, ``timeout``, ``connection``.
        examples: the words of the first one of each kind.
        answered: good answers within the time that is counted.
        seconds: that time.
        client_share: of one core, that this client needed; close to 1 it is the client that is measured.
    """

    load: Closed | Open
    latency: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    answered: int = 0
    seconds: float = 0.0
    client_share: float = 0.0

    @property
    def throughput(self) -> float:
        """Good answers a second."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def percentiles(self) -> dict[str, float]:
        """Latencies in seconds by name; empty without any."""
        if not self.latency.count:
            return {}
        return {name: self.latency.percentile(share) for name, share in QUANTILES.items()}

    def fail(self, kind: str, words: str) -> None:
        """Count an error."""
        self.errors[kind] += 1
        self.examples.setdefault(kind, words)
