"""How a model is computed: the values that calibration finds or an administrator pins. Plain values, no behaviour."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How requests of one model become runs of ONNX Runtime.

    Attributes:
        threads: Threads that one run may use.
        sessions: Runs that may be under way at the same time.
        batch_rows: Most rows of a run that several requests share; 1 computes each request by itself.
        batchable: Whether the first axis is a batch axis: rows computed together or alone give the same answers.
        batch_elements: Most elements of the inputs of such a run: with more, larger rows gain nothing by company; 0 for no
            bound.
        piece_rows: A request with more rows is computed in pieces of so many, if its model is batchable; 0: never.
        row_bytes: Bytes of the inputs and outputs of one row; 0 when unknown.
        inline: Compute on the event loop's own thread: a run is cheaper than handing it to another thread.
        queue_delay: Most seconds that a request waits for others to share its run, when that is worth it.
        processes: Processes of the server that compute the model, each by this plan.
        costs: Measured runs as `(elements of all inputs, seconds)`, by rising number of elements; () for none.
    """

    threads: int = 1
    sessions: int = 1
    batch_rows: int = 1
    batch_elements: int = 0
    batchable: bool = False
    piece_rows: int = 0
    row_bytes: int = 0
    inline: bool = False
    queue_delay: float = 0.0
    processes: int = 1
    costs: tuple[tuple[int, float], ...] = ()
