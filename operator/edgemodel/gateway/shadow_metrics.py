"""What shadowed requests came to, by candidate: series of a candidate that is gone go with it."""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

from edgemodel.gateway.shadow_comparison import OUTCOMES, Outcome

_LABELS = ("namespace", "name", "digest")


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate that gets copies of requests."""

    namespace: str
    name: str
    digest: str

    @property
    def labels(self) -> tuple[str, str, str]:
        """Return the values of its series' labels."""
        return (self.namespace, self.name, self.digest)


class ShadowMetrics:
    """Counts by candidate and outcome."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "edgemodel_gateway_shadow_requests",
            "Requests that a candidate was to get a copy of, by what came of it.",
            (*_LABELS, "outcome"),
            registry=registry,
        )
        self._seconds = Histogram(
            "edgemodel_gateway_shadow_candidate_seconds",
            "How long a candidate took to answer copies.",
            _LABELS,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=registry,
        )
        self._known: set[Trial] = set()

    def follow(self, trials: Iterable[Trial]) -> None:
        """Take over which candidates there are."""
        wanted = set(trials)
        for trial in self._known - wanted:
            self._seconds.remove(*trial.labels)
            for outcome in OUTCOMES:
                self._requests.remove(*trial.labels, outcome)
        for trial in wanted - self._known:
            self._seconds.labels(*trial.labels)
            for outcome in OUTCOMES:
                self._requests.labels(*trial.labels, outcome)
        self._known = wanted

    def count(self, trial: Trial, outcome: Outcome, seconds: float | None = None) -> None:
        """Count one request; of a candidate that is gone meanwhile nothing is kept."""
        if trial not in self._known:
            return
        self._requests.labels(*trial.labels, outcome).inc()
        if seconds is not None:
            self._seconds.labels(*trial.labels).observe(seconds)
