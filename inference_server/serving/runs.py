"""Computes a batch: the requests' arrays joined, one run of the model, each request's rows or its error.

Promises that one request's failure is not another's: a shared run that fails is repeated for each by itself; and that
nothing but a result comes out, whatever the model raises. Knows no queue and no thread.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inference_server.errors import ExecutionFailed, Overloaded, RequestError
from inference_server.serving.merging import merge, split
from inference_server.serving.request_queue import Batch, Piece
from inference_server.tensors import Array

logger = logging.getLogger(__name__)

Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]
"""Computes named outputs from inputs by name; blocks; raises `RequestError`."""


@dataclass(slots=True)
class Done:
    """What came of a batch.

    Attributes:
        batch: What was computed.
        results: Outputs for each of its pieces, or an error.
        seconds: How long it took.
    """

    batch: Batch
    results: Sequence[list[Array] | RequestError]
    seconds: float


def compute(run: Run, batch: Batch) -> Done:
    """Compute a batch; blocks."""
    started = time.monotonic()
    results = _results(run, batch.pieces)
    return Done(batch, results, time.monotonic() - started)


def _results(run: Run, pieces: list[Piece]) -> Sequence[list[Array] | RequestError]:
    """Return the outputs, or the error, for each piece."""
    outputs = pieces[0].request.outputs
    try:
        if len(pieces) == 1 and pieces[0].rows == pieces[0].request.rows:
            return [run(outputs, pieces[0].request.inputs)]
        arrays = run(outputs, merge([(piece.request.inputs, piece.first, piece.rows) for piece in pieces]))
        parts = split(arrays, [piece.rows for piece in pieces])
        if parts is not None:
            return parts
        logger.error("outputs have other first axes than inputs", extra={"fields": {"outputs": outputs}})
        if len(pieces) == 1:
            return [
                ExecutionFailed("the model's answer has another first axis than the request; send fewer rows")
            ]
    except RequestError as error:
        if len(pieces) == 1:
            return [error]
    except MemoryError:
        if len(pieces) == 1:
            return [Overloaded("out of memory for this request; send a smaller batch or try later")]
    except Exception:
        # A bug of ours must not end a session's thread: logged whole, told without detail.
        logger.exception("a run failed unexpectedly")
        return [ExecutionFailed("internal error; the server's log has the details")] * len(pieces)
    # One of them is at fault, and the others must not be told so.
    return [result for piece in pieces for result in _results(run, [piece])]
