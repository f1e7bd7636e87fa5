"""One at a time for each target, and who was overtaken by an unpublish.

A publish waits for its model outside its turn, or an unpublish would wait for a download that nobody wants any more. Instead
each unpublish marks those that came before it, and they mount nothing.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turn:
    """What calls for one target share; lives while one of them does."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.withdrawn = 0
        """Unpublishes so far: a publish that sees another number than at its start was overtaken."""
        self.users = 0


class Turns:
    """Turns by target."""

    def __init__(self) -> None:
        self._turns: dict[Path, Turn] = {}

    @contextmanager
    def of(self, target: Path) -> Iterator[Turn]:
        """Join the calls for a target."""
        turn = self._turns.setdefault(target, Turn())
        turn.users += 1
        try:
            yield turn
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[target]

    def __len__(self) -> int:
        return len(self._turns)
