"""Numbers of several processes in one piece of shared memory: each process counts in a row of its own, and reads all rows.

Promises that counting takes no lock and no call to another process: a number has one writer, and eight aligned bytes are
written at once. That what a process counted outlives it, `kill -9` included: who follows it takes its row over and counts
on. And that a row which is full loses nothing but the sum: what has no place there is counted in the process alone, which
the log says. Only servers of several processes have one.

A row is cells (doubles), then its directory: one line of JSON for each number or group of numbers, `[name, labels, count,
levels]`, in the order of their cells. Bytes that nobody wrote yet are zero and a line counts from its newline on, so that a
reader on another processor never takes half a line for a whole one.
"""

import json
import logging
import mmap
import os
from typing import cast

from inference_server.telemetry.cells import Cells

logger = logging.getLogger(__name__)

# Of a row; memory that nobody touched takes none.
_ROW_BYTES = 1 << 20
_DIRECTORY = _ROW_BYTES // 2  # where it begins
_CELL_BYTES = 8
# The first cells of each row.
_PID, _BEATS, _STUCK, _HEAD = 0, 1, 2, 8

Key = tuple[str, tuple[str, ...]]


class _Row:
    """What is known of a row's directory."""

    __slots__ = ("places", "read", "used")

    def __init__(self) -> None:
        self.read = 0  # bytes of the directory that were understood
        self.used = _HEAD  # cells given out
        # By name and labels: first cell, how many, whether they are levels.
        self.places: dict[str, dict[tuple[str, ...], tuple[int, int, bool]]] = {}


class Board:
    """The shared numbers of one server, as one of its processes has them.

    Args:
        rows: Processes that may count, the first one included.
        row: Which of them this one is.
        fd: The memory, from the process that made it; None makes it.

    Attributes:
        fd: For the processes that are to share it.
        rows: As above.
    """

    def __init__(self, rows: int, row: int = 0, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("edgemodel-numbers")
            os.ftruncate(fd, rows * _ROW_BYTES)
        self.fd = fd
        self.rows = rows
        self._row = row
        self._map = mmap.mmap(fd, rows * _ROW_BYTES)
        self._cells = memoryview(self._map).cast("d")
        self._known = [_Row() for _ in range(rows)]
        self._alone: dict[Key, list[float]] = {}  # what had no place
        self._head(row)[_PID] = os.getpid()

    def cells(self, name: str, labels: tuple[str, ...], count: int, *, levels: bool = False) -> Cells:
        """Return this process's cells for some numbers: those it had, or those of the process whose row it took over.

        Args:
            name: Of the numbers.
            labels: Which of that name.
            count: How many.
            levels: Whether they say what is now, and end with the process; else they only grow, and outlive it.
        """
        key = (name, labels)
        row = self._look(self._row)
        place = row.places.get(name, {}).get(labels)
        if place is None:
            line = json.dumps([name, labels, count, levels]).encode() + b"\n"
            start = self._row * _ROW_BYTES + _DIRECTORY + row.read
            if (
                row.read + len(line) >= _ROW_BYTES - _DIRECTORY
                or (row.used + count) * _CELL_BYTES > _DIRECTORY
            ):
                if not self._alone:
                    logger.warning(
                        "too many numbers to share; some are told by this process alone",
                        extra={"fields": {"name": name}},
                    )
                return self._alone.setdefault(key, [0.0] * count)
            self._map[start : start + len(line)] = line
            place = self._look(self._row).places[name][labels]
        first = self._row * _ROW_BYTES // _CELL_BYTES + place[0]
        return cast(Cells, self._cells[first : first + place[1]])

    def gather(self, name: str) -> dict[tuple[str, ...], list[Cells]]:
        """Return the cells of every process that has some of this name, by their labels."""
        found: dict[tuple[str, ...], list[Cells]] = {}
        for number in range(self.rows):
            base = number * _ROW_BYTES // _CELL_BYTES
            for labels, (first, count, _) in self._look(number).places.get(name, {}).items():
                cells = cast(Cells, self._cells[base + first : base + first + count])
                found.setdefault(labels, []).append(cells)
        for (known, labels), alone in self._alone.items():
            if known == name:
                found.setdefault(labels, []).append(alone)
        return found

    def beat(self, *, stuck: bool) -> None:
        """Say that this process's event loop turns, and whether a run of its does not come back."""
        head = self._head(self._row)
        head[_STUCK] = stuck
        head[_BEATS] += 1

    def beats(self, row: int) -> float:
        """Return how often the process of a row has said so."""
        return self._head(row)[_BEATS]

    def stuck(self, row: int) -> bool:
        """Whether a run of that process does not come back."""
        return bool(self._head(row)[_STUCK])

    @property
    def pids(self) -> list[int]:
        """The processes that count here now, the first one first."""
        return [int(pid) for row in range(self.rows) if (pid := self._head(row)[_PID])]

    def ended(self, row: int) -> None:
        """Take back what an ended process said of itself; what it counted stays."""
        head = self._head(row)
        head[_PID] = head[_STUCK] = 0
        base = row * _ROW_BYTES // _CELL_BYTES
        for places in self._look(row).places.values():
            for first, count, levels in places.values():
                if levels:
                    for at in range(base + first, base + first + count):
                        self._cells[at] = 0.0

    def _head(self, row: int) -> "memoryview[float]":
        first = row * _ROW_BYTES // _CELL_BYTES
        return self._cells[first : first + _HEAD]

    def _look(self, number: int) -> _Row:
        """Read what came to a row's directory since the last look."""
        row = self._known[number]
        start, end = number * _ROW_BYTES + _DIRECTORY + row.read, (number + 1) * _ROW_BYTES
        # Pages that are only looked at take memory too, so no further than the first zero.
        written = self._map[start : self._map.find(b"\0", start, end)]
        whole = written[: written.rfind(b"\n") + 1]
        for line in whole.splitlines():
            name, labels, count, levels = json.loads(line)
            row.places.setdefault(name, {})[tuple(labels)] = (row.used, count, levels)
            row.used += count
        row.read += len(whole)
        return row
