"""Tensors of the Open Inference Protocol as raw bytes ↔ numpy arrays (the binary tensor data extension).

Pure. Promises that a decoded array lies where the bytes came in, without a copy, unless they are not aligned for
their type or are strings; that nothing is allocated before the announced size is known to match the shape; and
that a refusal names the tensor and, for strings, the element. Numbers are little-endian in C order; BOOL is one
byte, 0 or 1; BYTES is, for each element, its length in four bytes little-endian and then the element. NaN and
infinity pass as they are. Source: Triton's `docs/protocol/extension_binary_data.md`.
"""

import math
from typing import Any

import numpy as np

from inference_server.errors import InvalidRequest
from inference_server.tensors import DYNAMIC, NUMPY_TYPES, Array, TensorSpec, check_caps

Buffer = bytes | memoryview

_LENGTH_BYTES = 4
# Copying less than that is cheaper than a view of it.
_COPIED_BYTES = 4096
_SIZE_IN_JSON = ".parameters.binary_data_size"


def decode_raw(
    raw: memoryview, shape: tuple[int, ...], datatype: str, where: str, size_in: str = _SIZE_IN_JSON
) -> Array:
    """Return the tensor that lies in `raw`, as a view where that is possible; it may be read-only.

    Args:
        raw: The tensor's bytes and nothing else.
        shape: A shape that `tensors.check_shape` returned.
        datatype: OIP datatype.
        where: Path of the tensor, for messages.
        size_in: What of it says its size, as the rest of a path.

    Raises:
        InvalidRequest: Another number of bytes than the shape takes, a BOOL that is neither 0 nor 1, or an element of
            BYTES that is cut short or not UTF-8.
    """
    count = math.prod(shape)
    numpy_type = NUMPY_TYPES[datatype]
    if numpy_type.hasobject:
        return _decode_strings(raw, count, shape, where, size_in)
    if len(raw) != count * numpy_type.itemsize:
        raise InvalidRequest(
            f"{where}{size_in}: expected {count * numpy_type.itemsize} for shape {list(shape)} "
            f"of {datatype}, found {len(raw)}"
        )
    array = np.frombuffer(raw, numpy_type, count)
    if numpy_type.kind == "b" and count:
        wrong = array.view(np.uint8) > 1
        if wrong.any():
            index = int(wrong.argmax())
            raise InvalidRequest(
                f"{where}: element {index} of its binary data: expected 0 or 1 for BOOL, found {raw[index]}"
            )
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(shape)


def decode_whole(raw: memoryview, spec: TensorSpec) -> Array:
    """Return a body that is one tensor and nothing else; the size the model leaves open follows from its length.

    For BYTES the body is the one element, without a length.

    Raises:
        InvalidRequest: The shape does not follow from the length or passes a cap, or as `decode_raw`.
    """
    where = f"input {spec.name!r}"
    fixed = math.prod(size for size in spec.shape if size != DYNAMIC)
    open_axes = sum(size == DYNAMIC for size in spec.shape)
    if spec.datatype == "BYTES":
        if fixed != 1:
            raise InvalidRequest(
                f"{where}: a raw body is one element; expected a request with shape {spec.shape}"
            )
        shape = tuple(1 for _ in spec.shape)
        return np.full(shape, _text(raw, where, 0), NUMPY_TYPES["BYTES"])
    unit = fixed * NUMPY_TYPES[spec.datatype].itemsize
    if open_axes > 1 or (open_axes and unit == 0):
        raise InvalidRequest(
            f"{where}: the model leaves more than one size of {list(spec.shape)} open; send a request with its shape"
        )
    if len(raw) % unit if unit and open_axes else len(raw) != unit:
        words = f"a multiple of {unit}" if open_axes else f"{unit}"
        raise InvalidRequest(f"body: expected {words} bytes for {where}, found {len(raw)}")
    shape = tuple(len(raw) // unit if size == DYNAMIC else size for size in spec.shape)
    check_caps(shape, spec, where)
    return decode_raw(raw, shape, spec.datatype, where)


def encode_raw(array: Array) -> Buffer:
    """Return an output's bytes; many numbers are not copied when they already lie in C order."""
    dtype = array.dtype
    if dtype.kind in "OUS":
        return _encode_strings(array)
    if array.nbytes <= _COPIED_BYTES and dtype.byteorder != ">":
        return array.tobytes()
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.byteorder == ">":
        flat = flat.astype(flat.dtype.newbyteorder("<"))
    # As bytes: memoryview refuses to cast empty arrays, and knows no half floats.
    return flat.view(np.uint8).data if flat.size else b""


def _decode_strings(raw: memoryview, count: int, shape: tuple[int, ...], where: str, size_in: str) -> Array:
    # Each element takes at least its length: checked before room for them is made.
    if count * _LENGTH_BYTES > len(raw):
        raise InvalidRequest(
            f"{where}{size_in}: expected at least {count * _LENGTH_BYTES} for {count} elements of "
            f"BYTES, found {len(raw)}"
        )
    values: Array = np.empty(count, NUMPY_TYPES["BYTES"])
    at, end = 0, len(raw)
    for index in range(count):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little") if start <= end else end + 1
        if at > end:
            raise InvalidRequest(
                f"{where}: element {index} of its binary data: expected a length of four bytes and as many bytes, "
                f"found the end of the tensor"
            )
        values[index] = _text(raw[start:at], where, index)
    if at != end:
        raise InvalidRequest(f"{where}{size_in}: expected {at} for {count} elements of BYTES, found {end}")
    return values.reshape(shape)


def _text(raw: memoryview, where: str, index: int) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{where}: element {index} of its binary data: expected UTF-8, as strings of ONNX are, "
            f"found byte 0x{raw[error.start]:02x} at {error.start}"
        ) from None


def _encode_strings(array: Array) -> bytes:
    pieces: list[Any] = []
    for value in array.reshape(-1):
        element = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        pieces += (len(element).to_bytes(_LENGTH_BYTES, "little"), element)
    return b"".join(pieces)
