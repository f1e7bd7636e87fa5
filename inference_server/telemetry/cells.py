"""Where counted numbers lie: in lists of this process, or on a board that several processes share. Pure."""

from collections.abc import Mapping, MutableSequence, Sequence
from typing import Protocol

Cells = MutableSequence[float]


class Board(Protocol):
    """What those who count ask of the memory that several processes share (`telemetry.board`)."""

    def cells(self, name: str, labels: tuple[str, ...], count: int, *, levels: bool = False) -> Cells:
        """Return this process's cells for some numbers; levels say what is now, and end with the process."""

    def gather(self, name: str) -> Mapping[tuple[str, ...], Sequence[Cells]]:
        """Return the cells of every process that has some of this name, by their labels."""
