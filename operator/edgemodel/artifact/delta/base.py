"""The old file, read by position: as it is, or only what lies between the numbers (its skeleton)."""

import bisect
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from edgemodel.artifact.delta.layout import Bytes


class FileBytes:
    """A file on the disk, never mapped: what was read counts as memory of this process for no longer than it is held."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly those bytes.

        Raises:
            OSError: the file ends before; it was cut since it was opened.
        """
        data = os.pread(self._file, length, offset)
        while len(data) < length:
            more = os.pread(self._file, length - len(data), offset + len(data))
            if not more:
                raise OSError(
                    f"expected {length} bytes at {offset}, found {len(data)}: the file was cut short"
                )
            data += more
        return data


class Skeleton:
    """The bytes of a file outside given ranges, as one run of bytes."""

    def __init__(self, whole: Bytes, ranges: Iterable[tuple[int, int]]) -> None:
        self._whole = whole
        self._starts: list[int] = []
        self._places: list[tuple[int, int]] = []
        self.size = 0
        end = 0
        for offset, length in sorted(ranges):
            self._keep(end, offset)
            end = max(end, offset + length)
        self._keep(end, whole.size)

    def _keep(self, start: int, end: int) -> None:
        if end > start:
            self._starts.append(self.size)
            self._places.append((start, end - start))
            self.size += end - start

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly those bytes of the run, which must be inside it."""
        pieces = []
        n = bisect.bisect_right(self._starts, offset) - 1
        while length:
            place, held = self._places[n]
            skip = offset - self._starts[n]
            taken = min(length, held - skip)
            pieces.append(self._whole.read(place + skip, taken))
            offset, length, n = offset + taken, length - taken, n + 1
        return b"".join(pieces)
