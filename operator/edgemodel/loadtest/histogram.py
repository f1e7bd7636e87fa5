"""Latencies, counted in buckets whose width grows with the value: few numbers for millions of requests.

Promises that no value is reported more than 1/128 (0.8 %) above what it was, and none below, from a nanosecond to hours,
and that its size depends on how far values spread and not on how many they are. Pure.

Source of the idea: HdrHistogram (https://hdrhistogram.org), of which this is the part that one process needs.
"""

import math
from collections.abc import Iterator

_BITS = 8
"""Values keep their highest eight bits."""
_HALF = 1 << (_BITS - 1)


class Histogram:
    """Counts of values in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.largest = 0.0
        """Seconds, exactly."""
        self._total = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count a value; one below zero counts as zero."""
        value = max(0, round(seconds * 1e9))
        shift = max(0, value.bit_length() - _BITS)
        bucket = shift * _HALF + (value >> shift)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self._total += seconds
        self.largest = max(self.largest, seconds)

    @property
    def mean(self) -> float:
        """The mean in seconds; 0 of none."""
        return self._total / self.count if self.count else 0.0

    def percentile(self, share: float) -> float:
        """Return the seconds that at least this share (0 to 1) of the values do not exceed.

        Raises:
            ValueError: there are no values, or no such share.
        """
        if not self.count or not 0 <= share <= 1:
            raise ValueError(f"expected values and a share from 0 to 1, found {self.count} and {share}")
        # Before rounding up, what floating point added: 0.99 x 100 is 99.
        wanted = max(1, math.ceil(round(share * self.count, 6)))
        for seconds, reached in self.cumulative():
            if reached >= wanted:
                return seconds
        return self.largest

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Yield the largest value in seconds that a bucket holds, and its count, from the smallest up."""
        for bucket in sorted(self._buckets):
            shift = max(0, bucket // _HALF - 1)
            highest = ((bucket - shift * _HALF + 1) << shift) - 1
            yield min(highest / 1e9, self.largest), self._buckets[bucket]

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yield seconds, and how many values do not exceed them, from the smallest up."""
        reached = 0
        for seconds, count in self.buckets():
            reached += count
            yield seconds, reached

    def spread(self, rows: int) -> list[tuple[float, float, int]]:
        """Return the values in so many ranges or fewer, each as much wider than the one before as that one was.

        Returns:
            From and to in seconds, and how many values lie between; the first range begins at the smallest value.
        """
        if not self.count:
            return []
        low = max(self.percentile(0), 1e-9)
        ratio = max(self.largest / low, 1.0)
        rows = max(1, min(rows, math.ceil(math.log(ratio) / math.log(1 + 1 / _HALF)) if ratio > 1 else 1))
        edges = [low * ratio ** (number / rows) for number in range(rows + 1)]
        edges[-1] = math.inf
        counts = [0] * rows
        at = 0
        for seconds, count in self.buckets():
            while seconds > edges[at + 1]:
                at += 1
            counts[at] += count
        edges[-1] = self.largest
        return list(zip(edges, edges[1:], counts, strict=False))
