"""What became of a model's requests: counts and nanoseconds, as Triton's statistics extension has them.

Sums, no clock: whoever measures hands in seconds, on the event loop's thread. Promises that a request is either a
success or a failure, and that the sums only grow. Unlike Triton's, `compute_infer` counts runs of ONNX Runtime, of
which several requests may share one. Source: Triton's `docs/protocol/extension_statistics.md`.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """How often something took place, and for how long altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class ModelStatistics:
    """The sums of one model.

    Attributes:
        success: Requests answered with 200, from complete request to complete answer.
        fail: Requests answered with an error.
        queue: Waiting for a session.
        compute_input: Decoding.
        compute_infer: Runs of ONNX Runtime.
        compute_output: Encoding.
        rows: Rows of all runs.
        batches: Runs by number of rows.
        last: Unix time of the last request in seconds, 0 for none yet.
    """

    success: Tally = field(default_factory=Tally)
    fail: Tally = field(default_factory=Tally)
    queue: Tally = field(default_factory=Tally)
    compute_input: Tally = field(default_factory=Tally)
    compute_infer: Tally = field(default_factory=Tally)
    compute_output: Tally = field(default_factory=Tally)
    rows: int = 0
    batches: dict[int, Tally] = field(default_factory=dict)
    last: float = 0.0

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
        self.last = now

    def failed(self, total: float, now: float) -> None:
        """Count a request that was answered with an error, so many seconds after it was complete, at a Unix time."""
        self.fail.add(total)
        self.last = now

    def ran(self, rows: int, seconds: float) -> None:
        """Count one run of ONNX Runtime."""
        self.rows += rows
        self.compute_infer.add(seconds)
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = Tally()
        batch.add(seconds)
