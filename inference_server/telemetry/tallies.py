"""Counters, histograms and levels for what changes with every request: a few list operations each, no lock, no search.

prometheus-client's own take a lock for each number and look for a bucket from the smallest up: a tenth of a small request.
These are for one thread, the event loop's, on which requests are counted and metrics are read; at a scrape they hand
their numbers to prometheus-client as any collector does, so that the text is the same. Where several processes serve
together, their numbers lie on a board that all of them read, and what is told is the whole server's.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from inference_server.telemetry.cells import Board, Cells


class _Counted:
    """Whatever is counted.

    Args:
        cells: Where its numbers are.
    """

    __slots__ = ("cells",)

    def __init__(self, cells: Cells) -> None:
        self.cells = cells


Child = TypeVar("Child", bound=_Counted)


class Count(_Counted):
    """One counter."""

    __slots__ = ()

    def inc(self, amount: float = 1) -> None:
        """Count."""
        self.cells[0] += amount


class Level(_Counted):
    """One gauge."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Say what it is now."""
        self.cells[0] = value


class Distribution(_Counted):
    """One histogram.

    Args:
        bounds: Upper bounds of the buckets, ascending, without infinity.
        cells: Where its numbers are: one for each bucket, infinity's included, and their sum.
    """

    __slots__ = ("_bounds", "exemplars")

    def __init__(self, bounds: Sequence[float], cells: Cells) -> None:
        super().__init__(cells)
        self._bounds = bounds
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float, exemplar: dict[str, str] | None = None) -> None:
        """Count a value; the exemplar is the newest of its bucket."""
        cells = self.cells
        bucket = bisect_left(self._bounds, value)
        cells[bucket] += 1
        cells[-1] += value
        if exemplar is not None:
            self.exemplars[bucket] = Exemplar(exemplar, value)


class _Family(Collector, Generic[Child]):
    """Children by the values of their labels."""

    _size = 1  # cells of a child
    _levels = False  # whether they say what is now
    _largest = False  # whether the largest of several processes' is told, or the sum

    def __init__(
        self,
        name: str,
        text: str,
        labels: Iterable[str],
        registry: CollectorRegistry,
        board: Board | None = None,
    ) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._board = board
        self._children: dict[tuple[str, ...], Child] = {}
        registry.register(self)

    def _made(self, cells: Cells) -> Child:
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
            if self._board is None:
                cells: Cells = [0.0] * self._size
            else:
                cells = self._board.cells(self._name, values, self._size, levels=self._levels)
            child = self._children[values] = self._made(cells)
        return child

    def _told(self) -> Mapping[tuple[str, ...], Sequence[float]]:
        """Return the numbers of the whole server, by their labels."""
        if self._board is None:
            return {values: child.cells for values, child in self._children.items()}
        join: Callable[[Iterable[float]], float] = max if self._largest else sum
        return {
            values: [join(column) for column in zip(*rows, strict=True)]
            for values, rows in self._board.gather(self._name).items()
        }


class Counts(_Family[Count]):
    """Counters of one name; the arguments are prometheus-client's, and where the numbers of several processes are."""

    def _made(self, cells: Cells) -> Count:
        return Count(cells)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return all of them (for the registry)."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, cells in self._told().items():
            family.add_metric(values, cells[0])
        return (family,)


class Levels(_Family[Level]):
    """Gauges of one name, of which a server of several processes tells the sum."""

    _levels = True

    def _made(self, cells: Cells) -> Level:
        return Level(cells)

    def remove(self, *values: str) -> None:
        """Tell of these values no longer."""
        self._children.pop(values).set(0)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return all of them (for the registry)."""
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for values, cells in self._told().items():
            family.add_metric(values, cells[0])
        return (family,)


class Longest(Levels):
    """Gauges of one name, of which a server of several processes tells the largest."""

    _largest = True


class Distributions(_Family[Distribution]):
    """Histograms of one name; the arguments are those of `Counts`, and the bounds of the buckets."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Iterable[str],
        registry: CollectorRegistry,
        buckets: Sequence[float],
        board: Board | None = None,
    ) -> None:
        self._bounds = tuple(float(bound) for bound in buckets)
        self._names = [*map(floatToGoString, self._bounds), "+Inf"]
        self._size = len(self._names) + 1
        super().__init__(name, text, labels, registry, board)

    def _made(self, cells: Cells) -> Distribution:
        return Distribution(self._bounds, cells)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return all of them (for the registry); exemplars are those of this process."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, cells in self._told().items():
            child = self._children.get(values)
            rows: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
            below = 0.0
            for at, name in enumerate(self._names):
                below += cells[at]
                exemplar = None if child is None else child.exemplars.get(at)
                rows.append((name, below) if exemplar is None else (name, below, exemplar))
            family.add_metric(values, rows, cells[-1])
        return (family,)
