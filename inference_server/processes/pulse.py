"""Whether another process of the server lives: its event loop turns, and no run of its is stuck."""

from inference_server.telemetry.board import Board

MOST_MISSED = 90
"""Looks, a second apart, without a beat between them. A loop that stands still is found by its own process sooner, with its
stack in the log (`host.watchdog`). What reaches this is stopped, or never lets go of the GIL."""


class Pulse:
    """Looks at one other process, once a second.

    Args:
        board: Where it beats.
        row: Which one it is.
    """

    def __init__(self, board: Board, row: int) -> None:
        self._board = board
        self._row = row
        self._beats = -1.0
        self._missed = 0

    def alive(self) -> bool:
        """Look. Looks are counted, not seconds: whoever was stopped together with the other is not told that it is dead."""
        beats = self._board.beats(self._row)
        self._missed = 0 if beats != self._beats else self._missed + 1
        self._beats = beats
        return self._missed < MOST_MISSED and not self._board.stuck(self._row)
