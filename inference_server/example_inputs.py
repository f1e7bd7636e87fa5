"""Made-up inputs that a model might accept, for its warm-up and calibration.

Pure, given a random generator. Promises arrays of the names, datatypes and ranks that the model declares; whether it accepts
the sizes that it leaves open is found by trying the candidates in order.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from inference_server.tensors import DYNAMIC, NUMPY_TYPES, Array, TensorSpec

# What open axes usually mean, in this order: tokens of a short text, anything, the side of a small and of a common image.
_OPEN_SIZES = (16, 1, 64, 224)
# No example is larger: an open axis more than expected must not cost a gigabyte.
_MOST_ELEMENTS = 1 << 20


def open_sizes(specs: tuple[TensorSpec, ...]) -> Iterator[int]:
    """Yield sizes to try for axes that a model leaves open, the first axis aside; one size if there are none."""
    if not any(DYNAMIC in spec.shape[1:] for spec in specs):
        yield 1
        return
    for size in _OPEN_SIZES:
        shapes = [shape_of(spec, 1, size) for spec in specs]
        if size == 1 or sum(math.prod(shape) for shape in shapes) <= _MOST_ELEMENTS:
            yield size


def shape_of(spec: TensorSpec, rows: int, size: int) -> tuple[int, ...]:
    """Return a concrete shape: `rows` for an open first axis, `size` for other open axes."""
    return tuple(
        (rows if axis == 0 else size) if length == DYNAMIC else length
        for axis, length in enumerate(spec.shape)
    )


def example(
    specs: tuple[TensorSpec, ...], rows: int, size: int, random: np.random.Generator | None = None
) -> Mapping[str, Array]:
    """Return inputs of so many rows.

    Args:
        specs: The model's inputs.
        rows: Size of open first axes.
        size: Size of other open axes.
        random: Where values come from; None makes all of them zero. Whole numbers are 0 or 1, which is an index into
            anything; of fractions, each row has a magnitude of its own, so that a scale taken over a whole batch shows.
    """
    return {spec.name: _values(spec.datatype, shape_of(spec, rows, size), random) for spec in specs}


def _values(datatype: str, shape: tuple[int, ...], random: np.random.Generator | None) -> Array:
    if datatype == "BYTES":
        texts = np.empty(shape, NUMPY_TYPES[datatype])
        texts.fill("" if random is None else "a")
        return texts
    numpy_type = NUMPY_TYPES[datatype]
    if random is None:
        return np.zeros(shape, numpy_type)
    if numpy_type.kind == "f":
        values = random.standard_normal(shape, np.float32)
        if shape:
            values *= (2.0 ** (np.arange(shape[0], dtype=np.float32) % 3)).reshape(
                -1, *[1] * (len(shape) - 1)
            )
        return values.astype(numpy_type)
    return random.integers(0, 2, shape).astype(numpy_type)
