"""Tensors of the Open Inference Protocol as JSON ↔ numpy arrays.

Pure. Promises that a decoded array has exactly the shape and datatype that were announced, that no value
was rounded to another type, parsed from a string or turned into infinity on the way, and that nothing is
allocated before the announced shape is known to match the number of values that came. Every refusal names
the field. Source: Open Inference Protocol, "Tensor Data Types" and "Tensor Data".
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from inference_server.errors import InvalidRequest

Array = np.ndarray[Any, np.dtype[Any]]

# OIP datatype → numpy dtype. Two have no numpy type of their own: BYTES is an object array of str, BF16 its bits.
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.uint16),
    "BYTES": np.dtype(np.object_),
}
DATATYPES = {numpy_type: datatype for datatype, numpy_type in NUMPY_TYPES.items() if datatype != "BF16"}

# numpy's own limit is 64; no model comes near either.
MAX_RANK = 32
MAX_DIMENSION = 2**63 - 1

DYNAMIC = -1

# JSON types that a datatype takes, and how to say so.
_ACCEPTED: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "u": (frozenset({int}), "a whole number"),
    "i": (frozenset({int}), "a whole number"),
    "f": (frozenset({float, int}), "a number"),
    "O": (frozenset({str}), "a string"),
}


# What `struct` calls the datatypes that it packs exactly as numpy does: rounding to nearest, and an error beyond the range.
# (The latter with a byte order in front; its native float silently makes infinity of 1e39.)
_PACKED = {
    "FP32": "f",
    "FP64": "d",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model says about one of its inputs or outputs.

    Attributes:
        name: Tensor name.
        datatype: OIP datatype.
        shape: Sizes by axis, `DYNAMIC` where the model leaves the size open.
        most_elements: Most elements that a request may announce, an axis of 0 counted as 1; 0 for no bound.
        most_rows: Most rows on the first axis; 0 for no bound.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    most_elements: int = field(default=0, compare=False)
    most_rows: int = field(default=0, compare=False)


def check_shape(shape: object, spec: TensorSpec, where: str) -> tuple[int, ...]:
    """Return the announced shape as a tuple of sizes that the model accepts.

    Args:
        shape: What the client sent.
        spec: What the model wants.
        where: JSON path of the tensor, for messages.

    Raises:
        InvalidRequest: Not a list of sizes, of another rank, another size on a fixed axis, or more than memory allows.
    """
    if type(shape) is list and len(shape) == len(spec.shape) <= MAX_RANK:
        for size, wanted in zip(shape, spec.shape, strict=True):
            if type(size) is not int or not (
                0 <= size <= MAX_DIMENSION if wanted == DYNAMIC else size == wanted
            ):
                break
        else:
            check_caps(shape, spec, where)
            return tuple(shape)
    if not isinstance(shape, list):
        raise InvalidRequest(f"{where}.shape: expected a list of sizes, found {kind(shape)}")
    if len(shape) > MAX_RANK:
        raise InvalidRequest(f"{where}.shape: expected at most {MAX_RANK} sizes, found {len(shape)}")
    for axis, size in enumerate(shape):
        if type(size) is not int or not 0 <= size <= MAX_DIMENSION:
            raise InvalidRequest(
                f"{where}.shape[{axis}]: expected a whole number from 0 to 2^63-1, found {shown(size)}"
            )
    if len(shape) != len(spec.shape):
        raise InvalidRequest(
            f"{where}.shape: expected {len(spec.shape)} sizes {list(spec.shape)} (-1: any), "
            f"found {len(shape)}"
        )
    for axis, (size, wanted) in enumerate(zip(shape, spec.shape, strict=True)):
        if wanted not in (DYNAMIC, size):
            raise InvalidRequest(f"{where}.shape[{axis}]: expected {wanted}, found {size}")
    check_caps(shape, spec, where)
    return tuple(shape)


def check_caps(shape: Sequence[int], spec: TensorSpec, where: str) -> None:
    """Refuse a tensor that memory has no room for, before any of it is allocated.

    Args:
        shape: Its announced sizes.
        spec: What the model wants, with its bounds.
        where: JSON path of the tensor, for messages.

    Raises:
        InvalidRequest: More rows or elements than the server takes.
    """
    if spec.most_rows and shape and shape[0] > spec.most_rows:
        raise InvalidRequest(
            f"{where}.shape[0]: expected at most {spec.most_rows} rows, for which this server has memory, "
            f"found {shape[0]}; send several requests"
        )
    if spec.most_elements:
        elements = 1
        for size in shape:
            # An axis of 0 makes an empty tensor, which a model may turn into one of all the other sizes.
            elements *= size or 1
        if elements > spec.most_elements:
            raise InvalidRequest(
                f"{where}.shape: expected at most {spec.most_elements} elements, for which this server has memory, "
                f"found {elements}; send less in one request"
            )


def decode_data(data: object, shape: tuple[int, ...], datatype: str, where: str) -> Array:
    """Return the values of one tensor, in C order and of exactly this shape and datatype; it may be read-only.

    Args:
        data: A flat list of values, or lists nested as the shape says; parsed JSON.
        shape: A shape that `check_shape` returned.
        datatype: OIP datatype.
        where: JSON path of the tensor, for messages.

    Raises:
        InvalidRequest: Wrong number of values, wrong nesting, or a value that the datatype cannot hold.
    """
    if not isinstance(data, list):
        raise InvalidRequest(f"{where}.data: expected a list of values, found {kind(data)}")
    expected = math.prod(shape)
    numpy_type = NUMPY_TYPES[datatype]
    accepted, words = _ACCEPTED[numpy_type.kind]
    if (
        len(data) == expected
        and (code := _PACKED.get(datatype)) is not None
        and accepted.issuperset(map(type, data))
    ):
        try:
            packed = struct.pack(f"<{expected}{code}", *data)
        except (struct.error, OverflowError):
            pass  # beyond the range: what follows names it
        else:
            return np.ndarray(shape, numpy_type, packed)
    if datatype == "BF16":
        raise InvalidRequest(f"{where}.data: BF16 has no form in JSON; send the tensor as binary data")
    values, types = _flatten(data, shape, where)
    if len(values) != expected:
        raise InvalidRequest(
            f"{where}.data: expected {expected} values for shape {list(shape)}, found {len(values)}"
        )
    if not types <= accepted:
        index = next(i for i, value in enumerate(values) if type(value) not in accepted)
        raise InvalidRequest(
            f"{where}.data[{index}]: expected {words} for {datatype}, found {shown(values[index])}"
        )
    try:
        # The cast to a narrower float signals overflow; rounding to the nearest is what a client asks for.
        with np.errstate(over="raise"):
            array = np.array(values, dtype=numpy_type)
    except (OverflowError, FloatingPointError):
        raise InvalidRequest(_out_of_range(values, numpy_type, datatype, where)) from None
    return array.reshape(shape)


def encode_data(array: Array) -> Array | list[Any]:
    """Return an output's values as a flat sequence for the JSON writer; numbers stay a numpy array."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind in "OUS":
        return [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in flat
        ]
    return flat


def bf16(floats: Array) -> Array:
    """Return FP32 numbers as BF16, the upper half of their bits; what the lower half says is cut off."""
    return (floats.view(np.uint32) >> 16).astype(np.uint16)


def numbers(array: Array, datatype: str) -> Array:
    """Return an array with which numpy computes: BF16 as FP32, others as they are."""
    return (array.astype(np.uint32) << 16).view(np.float32) if datatype == "BF16" else array


def bf16_exactly(array: Array, where: str) -> Array:
    """Return the BF16 that a file holds as FP32, as `numbers` gives it.

    Raises:
        InvalidRequest: Of another type, or a number that BF16 does not have.
    """
    if array.dtype != np.float32:
        raise InvalidRequest(
            f"{where}: expected FP32 for BF16, found {DATATYPES.get(array.dtype, array.dtype)}"
        )
    if (array.view(np.uint32) & 0xFFFF).any():
        raise InvalidRequest(
            f"{where}: expected numbers that BF16 has, found some with more digits; round them first"
        )
    return bf16(array)


def _flatten(data: list[Any], shape: tuple[int, ...], where: str) -> tuple[Sequence[Any], set[type]]:
    """Return the scalars of a flat or nested list, and the set of their types."""
    values: Sequence[Any] = data
    types = set(map(type, values))
    axis = 0
    while list in types:
        axis += 1
        if types != {list}:
            raise InvalidRequest(f"{where}.data: expected either values or lists at depth {axis}, found both")
        if axis >= len(shape):
            raise InvalidRequest(f"{where}.data: expected at most {len(shape)} levels of lists, found more")
        # One level down only if this level is as long as the shape says: work stays bounded by what was sent.
        if len(values) != math.prod(shape[:axis]) or set(map(len, values)) - {shape[axis]}:
            raise InvalidRequest(
                f"{where}.data: expected lists nested as shape {list(shape)} says; level {axis} differs"
            )
        values = list(chain.from_iterable(values))
        types = set(map(type, values))
    if 0 < axis < len(shape) - 1 and values:
        raise InvalidRequest(
            f"{where}.data: expected a flat list or {len(shape)} levels of lists, found {axis + 1}"
        )
    return values, types


def _out_of_range(values: Sequence[Any], numpy_type: np.dtype[Any], datatype: str, where: str) -> str:
    low: float
    high: float
    if numpy_type.kind == "f":
        low, high = float(np.finfo(numpy_type).min), float(np.finfo(numpy_type).max)
    else:
        low, high = np.iinfo(numpy_type).min, np.iinfo(numpy_type).max
    span = f"a value from {low} to {high} for {datatype}"
    for index, value in enumerate(values):
        if not low <= value <= high:
            return f"{where}.data[{index}]: expected {span}, found {shown(value)}"
    return f"{where}.data: expected {span}, found one beyond"


def kind(value: object) -> str:
    """Return the JSON type of a client's value, in words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), "a number")


def shown(value: object) -> str:
    """Return a short form of a client's value: enough to recognise it, never a whole payload."""
    text = repr(value) if isinstance(value, int | float) else None
    return text if text is not None and len(text) <= 40 else kind(value)
