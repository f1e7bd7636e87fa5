"""What became of a model's requests: counts and nanoseconds, as Triton's statistics extension has them.

Pure sums, no clock: whoever measures hands in seconds, on the event loop's thread. Promises that a request is either a
success or a failure, and that the sums only grow. Source: Triton's `docs/protocol/extension_statistics.md`.
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
class BatchTally:
    """Runs of one batch size: what went before, the run, and what came after."""

    compute_input: Tally = field(default_factory=Tally)
    compute_infer: Tally = field(default_factory=Tally)
    compute_output: Tally = field(default_factory=Tally)


@dataclass(slots=True)
class ModelStatistics:
    """The sums of one model.

    Attributes:
        success: Requests answered with 200, from complete request to complete answer.
        fail: Requests answered with an error.
        queue: Waiting for a session.
        compute_input: Decoding, and putting batches together.
        compute_infer: ONNX Runtime.
        compute_output: Taking batches apart, and encoding.
        cache_hit: Answers found in the result cache.
        cache_miss: Answers looked for there and not found.
        rows: Rows of all successful requests.
        runs: Runs of ONNX Runtime.
        batches: Runs by number of rows.
        last: Unix time of the last request in seconds, 0 for none yet.
    """

    success: Tally = field(default_factory=Tally)
    fail: Tally = field(default_factory=Tally)
    queue: Tally = field(default_factory=Tally)
    compute_input: Tally = field(default_factory=Tally)
    compute_infer: Tally = field(default_factory=Tally)
    compute_output: Tally = field(default_factory=Tally)
    cache_hit: Tally = field(default_factory=Tally)
    cache_miss: Tally = field(default_factory=Tally)
    rows: int = 0
    runs: int = 0
    batches: dict[int, BatchTally] = field(default_factory=dict)
    last: float = 0.0

    def answered(
        self,
        rows: int,
        *,
        total: float,
        queued: float,
        decoded: float,
        computed: float,
        encoded: float,
        now: float,
    ) -> None:
        """Count a request that was answered with 200; all times in seconds.

        Args:
            rows: Its rows: the size of the batch axis, 1 for a model without one.
            total: From complete request to complete answer.
            queued: Waiting for a session.
            decoded: Making arrays of bytes.
            computed: In ONNX Runtime, those it shared a run with included.
            encoded: Making bytes of arrays.
            now: Unix time.
        """
        self.success.add(total)
        self.queue.add(queued)
        self.compute_input.add(decoded)
        self.compute_infer.add(computed)
        self.compute_output.add(encoded)
        self.rows += rows
        self.last = now

    def failed(self, total: float, now: float) -> None:
        """Count a request that was answered with an error."""
        self.fail.add(total)
        self.last = now

    def ran(self, rows: int, *, before: float, run: float, after: float) -> None:
        """Count one run of ONNX Runtime; all times in seconds.

        Args:
            rows: Rows of the whole run.
            before: Putting its inputs together.
            run: The run.
            after: Taking its outputs apart.
        """
        self.runs += 1
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = BatchTally()
        batch.compute_input.add(before)
        batch.compute_infer.add(run)
        batch.compute_output.add(after)
