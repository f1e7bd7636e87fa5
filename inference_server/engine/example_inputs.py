"""Made-up inputs that a model might accept, for its warm-up and calibration.

Pure. Promises arrays of the names, datatypes and ranks that the model declares; whether it accepts
the sizes that it leaves open is found by trying the candidates in order.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from inference_server.tensors import DYNAMIC, NUMPY_TYPES, Array, TensorSpec, bf16

# What open axes usually are: tokens of a short text, or the sides of an image; then anything.
_OPEN_SIZES = (16, 1, 64, 224)
_OPEN_SIDES = (64, 224, 32, 16, 1)
# No example is larger: an open axis more than expected must not cost a gigabyte.
_MOST_ELEMENTS = 1 << 20


def open_sizes(specs: tuple[TensorSpec, ...]) -> Iterator[int]:
    """Yield sizes to try for axes that a model leaves open, the first axis aside; one size if there are none."""
    if not any(DYNAMIC in spec.shape[1:] for spec in specs):
        yield 1
        return
    for size in _OPEN_SIDES if any(len(spec.shape) == 4 for spec in specs) else _OPEN_SIZES:
        shapes = [shape_of(spec, 1, size) for spec in specs]
        if size == 1 or sum(math.prod(shape) for shape in shapes) <= _MOST_ELEMENTS:
            yield size


def shape_of(spec: TensorSpec, rows: int, size: int) -> tuple[int, ...]:
    """Return a concrete shape: `rows` for an open first axis, `size` for other open axes."""
    return tuple(
        (rows if axis == 0 else size) if length == DYNAMIC else length
        for axis, length in enumerate(spec.shape)
    )


def example(specs: tuple[TensorSpec, ...], rows: int, size: int, seed: int = 0) -> Mapping[str, Array]:
    """Return inputs of so many rows, always the same for the same arguments.

    Args:
        specs: The model's inputs.
        rows: Size of open first axes.
        size: Size of other open axes.
        seed: Which values; 0 makes all of them zero. Whole numbers are 0 or 1, an index into anything; of fractions,
            each row has a magnitude of its own, so that a scale taken over a whole batch shows.
    """
    return {spec.name: _values(spec.datatype, shape_of(spec, rows, size), seed) for spec in specs}


def _values(datatype: str, shape: tuple[int, ...], seed: int) -> Array:
    numpy_type = NUMPY_TYPES[datatype]
    if datatype == "BYTES":
        texts = np.empty(shape, numpy_type)
        texts.fill("a" if seed else "")
        return texts
    if not seed:
        return np.zeros(shape, numpy_type)
    values = _noise(math.prod(shape), seed).reshape(shape)
    if numpy_type.kind != "f" and datatype != "BF16":
        return (values > 0).astype(numpy_type)
    if shape:
        values *= (2.0 ** (np.arange(shape[0], dtype=np.float32) % 3)).reshape(-1, *[1] * (len(shape) - 1))
    return bf16(values) if datatype == "BF16" else values.astype(numpy_type)


def _noise(count: int, seed: int) -> Array:
    """Return numbers between -1 and 1 without a pattern that a model would care for.

    Not numpy.random: importing it takes 7 MB of memory for the life of the server.
    """
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return ((mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)).astype(
        np.float32
    )
