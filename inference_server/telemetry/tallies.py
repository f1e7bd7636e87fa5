"""Counters and histograms for what is counted with every request: a few list operations each, no lock, no search.

prometheus-client's own take a lock for each number and look for a bucket from the smallest up: a tenth of a small request.
These are for one thread, the event loop's, on which requests are counted and metrics are read; at a scrape they hand
their numbers to prometheus-client as any collector does, so that the text is the same.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

Child = TypeVar("Child")


class Count:
    """One counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Count."""
        self.value += amount


class Distribution:
    """One histogram.

    Args:
        bounds: Upper bounds of the buckets, ascending, without infinity.
    """

    __slots__ = ("_bounds", "buckets", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float, exemplar: dict[str, str] | None = None) -> None:
        """Count a value; the exemplar is the newest of its bucket."""
        bucket = bisect_left(self._bounds, value)
        self.buckets[bucket] += 1
        self.total += value
        if exemplar is not None:
            self.exemplars[bucket] = Exemplar(exemplar, value)


class _Family(Collector, Generic[Child]):
    """Children by the values of their labels."""

    def __init__(self, name: str, text: str, labels: Iterable[str], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._children: dict[tuple[str, ...], Child] = {}
        registry.register(self)

    def _made(self) -> Child:
        raise NotImplementedError

    def describe(self) -> Iterable[Metric]:
        """Return the family without samples: the registry sees to it that names are given once."""
        return [type(family)(family.name, family.documentation) for family in self.collect()]  # type: ignore[call-arg]

    def labels(self, *values: str) -> Child:
        """Return what counts for these values; keep it: looking it up costs more than to count."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name}: expected values of {self._labels}, found {values}")
            child = self._children[values] = self._made()
        return child


class Counts(_Family[Count]):
    """Counters of one name; the arguments are prometheus-client's."""

    def _made(self) -> Count:
        return Count()

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return all of them (for the registry)."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self._children.items():
            family.add_metric(values, child.value)
        return (family,)


class Distributions(_Family[Distribution]):
    """Histograms of one name; the arguments are prometheus-client's."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Iterable[str],
        registry: CollectorRegistry,
        buckets: Sequence[float],
    ) -> None:
        super().__init__(name, text, labels, registry)
        self._bounds = tuple(float(bound) for bound in buckets)
        self._names = [*map(floatToGoString, self._bounds), "+Inf"]

    def _made(self) -> Distribution:
        return Distribution(self._bounds)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return all of them (for the registry)."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self._children.items():
            rows: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
            below = 0
            for at, name in enumerate(self._names):
                below += child.buckets[at]
                exemplar = child.exemplars.get(at)
                rows.append((name, below) if exemplar is None else (name, below, exemplar))
            family.add_metric(values, rows, child.total)
        return (family,)
