"""Several requests' arrays ↔ those of one run, along the first axis.

Pure. Promises that each request gets the rows that are its own, in order; nothing is padded, so a shared run computes what
the requests' own runs would, within what the order of floating-point sums changes (`calibration` states and checks it).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from inference_server.tensors import Array


def rows_of(inputs: Mapping[str, Array]) -> int | None:
    """Return the size of the first axis, in which all inputs agree; None when they do not, have none, or it is 0."""
    rows = None
    for array in inputs.values():
        if not array.shape or rows not in (None, array.shape[0]):
            return None
        rows = array.shape[0]
    return rows or None


def elements_of(inputs: Mapping[str, Array]) -> int:
    """Return the number of elements of all inputs together: the size of a request."""
    elements = 0
    for array in inputs.values():
        elements += array.size
    return elements


def key_of(inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> tuple[object, ...]:
    """Return what must be equal for two requests to share a run: all sizes but the first, and the outputs."""
    return (outputs, *[array.shape[1:] for array in inputs.values()])


def merge(pieces: Sequence[tuple[Mapping[str, Array], int, int]]) -> Mapping[str, Array]:
    """Return the inputs of one run.

    Args:
        pieces: For each request its inputs, the first row to compute, and how many.
    """
    if len(pieces) == 1:
        inputs, first, count = pieces[0]
        return {name: _rows(array, first, count) for name, array in inputs.items()}
    return {
        name: np.concatenate([_rows(inputs[name], first, count) for inputs, first, count in pieces])
        for name in pieces[0][0]
    }


def split(outputs: Sequence[Array], counts: Sequence[int]) -> list[list[Array]] | None:
    """Return each request's rows of the outputs; None when these do not have the rows of the run.

    Args:
        outputs: What the run gave.
        counts: Rows of each request.
    """
    total = sum(counts)
    if any(not output.shape or output.shape[0] != total for output in outputs):
        return None
    parts, first = [], 0
    for count in counts:
        parts.append([output[first : first + count] for output in outputs])
        first += count
    return parts


def join(parts: Mapping[int, Sequence[Array]]) -> list[Array]:
    """Return the outputs of a request that was computed in pieces, given these by their first row."""
    ordered = [parts[first] for first in sorted(parts)]
    return [np.concatenate(column) for column in zip(*ordered, strict=True)]


def _rows(array: Array, first: int, count: int) -> Array:
    return array if len(array) == count else array[first : first + count]
