"""What became of a model's requests: counts and nanoseconds, as Triton's statistics extension has them.

Sums, no clock: whoever measures hands in seconds, on the event loop's thread. Promises that a request is either a
success or a failure, and that the sums only grow. Unlike Triton's, `compute_infer` counts runs of ONNX Runtime, of
which several requests may share one. Source: Triton's `docs/protocol/extension_statistics.md`.
"""

from inference_server.telemetry.cells import Board, Cells

_NAME = "statistics"  # on the board
_BATCH = "batch "  # and there, before the number of rows
_LAST = "last"


class Tally:
    """How often something took place, and for how long altogether.

    Args:
        cells: Where the two numbers are.
    """

    __slots__ = ("_cells",)

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    @property
    def count(self) -> int:
        """How often."""
        return int(self._cells[0])

    @property
    def seconds(self) -> float:
        """For how long altogether."""
        return self._cells[1]

    def add(self, seconds: float) -> None:
        """Count one more."""
        cells = self._cells
        cells[0] += 1
        cells[1] += seconds


class ModelStatistics:
    """The sums of one model.

    Args:
        labels: Its name and version.
        board: Where the numbers of several processes are; None where one serves alone.

    Attributes:
        success: Requests answered with 200, from complete request to complete answer.
        fail: Requests answered with an error.
        queue: Waiting for a session.
        compute_input: Decoding.
        compute_infer: Runs of ONNX Runtime.
        compute_output: Encoding.
        batches: Runs by number of rows.
    """

    def __init__(self, labels: tuple[str, str] = ("", ""), board: Board | None = None) -> None:
        self._labels = labels
        self._board = board
        self._cells: dict[str, Cells] = {}
        self.success = self._tally("success")
        self.fail = self._tally("fail")
        self.queue = self._tally("queue")
        self.compute_input = self._tally("compute_input")
        self.compute_infer = self._tally("compute_infer")
        self.compute_output = self._tally("compute_output")
        self.batches: dict[int, Tally] = {}
        self._rows = self._of("rows", 1)
        self._last = self._of(_LAST, 1)

    @property
    def rows(self) -> int:
        """Rows of all runs."""
        return int(self._rows[0])

    @property
    def last(self) -> float:
        """Unix time of the last request in seconds, 0 for none yet."""
        return self._last[0]

    def answered(self, total: float, decoded: float, encoded: float, now: float) -> None:
        """Count a request that was answered with 200; all times in seconds.

        Args:
            total: From complete request to complete answer.
            decoded: Making arrays of bytes.
            encoded: Making bytes of arrays.
            now: Unix time.
        """
        self.success.add(total)
        self.compute_input.add(decoded)
        self.compute_output.add(encoded)
        self._last[0] = now

    def failed(self, total: float, now: float) -> None:
        """Count a request that was answered with an error, so many seconds after it was complete, at a Unix time."""
        self.fail.add(total)
        self._last[0] = now

    def ran(self, rows: int, seconds: float) -> None:
        """Count one run of ONNX Runtime."""
        self._rows[0] += rows
        self.compute_infer.add(seconds)
        (self.batches.get(rows) or self._batch(rows)).add(seconds)

    def whole(self) -> "ModelStatistics":
        """Return the sums of all processes that serve the model; these where one serves it alone."""
        if self._board is None:
            return self
        whole = ModelStatistics()
        for (*labels, what), rows in self._board.gather(_NAME).items():
            if tuple(labels) != self._labels:
                continue
            if what.startswith(_BATCH):
                whole._batch(int(what.removeprefix(_BATCH)))
            cells = whole._cells[what]
            for row in rows:
                for at, value in enumerate(row):
                    cells[at] = max(cells[at], value) if what == _LAST else cells[at] + value
        return whole

    def _batch(self, rows: int) -> Tally:
        tally = self.batches[rows] = self._tally(f"{_BATCH}{rows}")
        return tally

    def _tally(self, what: str) -> Tally:
        return Tally(self._of(what, 2))

    def _of(self, what: str, count: int) -> Cells:
        if self._board is None:
            cells: Cells = [0.0] * count
        else:
            cells = self._board.cells(_NAME, (*self._labels, what), count)
        self._cells[what] = cells
        return cells
