"""Finds tensors in the bytes of an ONNX model without building it: a walk over protobuf's wire format.

Promises: no copy of weights, no memory beyond the list it returns, at most as many steps as the file has bytes, a bounded
depth; what is malformed ends the walk with what was found so far. Leaves to others: whether it is a good model.

Sources: onnx/onnx onnx.proto (field numbers), protobuf.dev/programming-guides/encoding (wire types).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

DTYPES = {1: "F32", 2: "U8", 3: "I8", 10: "F16", 11: "F64", 16: "BF16"}
"""onnx.TensorProto.DataType of those whose bytes are worth subtracting."""
_VARINT, _I64, _LENGTH, _I32 = 0, 1, 2, 5
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER, _NODE_ATTRIBUTE = 7, 1, 5, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_DTYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_DOUBLES, _TENSOR_EXTERNAL = (
    2,
    4,
    8,
    9,
    10,
    13,
)
MAX_DEPTH = 16
"""Of graphs within graphs."""
MAX_TENSORS = 1 << 18


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's bytes: in this file, or with ``location`` in another one, named relative to the model."""

    name: str
    dtype: str
    offset: int
    size: int
    location: str | None


class _MalformedError(Exception):
    pass


def tensors(data: bytes | mmap) -> list[Tensor]:
    """Return the tensors of a model in the order of the file."""
    found: list[Tensor] = []
    try:
        for field, wire, start, end in _fields(data, 0, len(data)):
            if field == _MODEL_GRAPH and wire == _LENGTH:
                _graph(data, start, end, found, 0)
    except _MalformedError:
        pass
    return found


def _varint(data: bytes | mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _MalformedError
        octet = data[at]
        at += 1
        value |= (octet & 127) << shift
        if octet < 128:
            return value, at
    raise _MalformedError


def _fields(data: bytes | mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield field number, wire type, and start and end of the content; for a varint its value stands for the start."""
    while at < end:
        key, at = _varint(data, at, end)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield field, wire, value, at
            continue
        if wire == _LENGTH:
            length, at = _varint(data, at, end)
        elif wire in (_I32, _I64):
            length = 4 if wire == _I32 else 8
        else:
            raise _MalformedError
        if length > end - at:
            raise _MalformedError
        yield field, wire, at, at + length
        at += length


def _graph(data: bytes | mmap, start: int, end: int, found: list[Tensor], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _MalformedError
    for field, wire, first, last in _fields(data, start, end):
        if wire != _LENGTH:
            continue
        if field == _GRAPH_INITIALIZER:
            _tensor(data, first, last, found)
        elif field == _GRAPH_NODE:
            for inner, inner_wire, a, z in _fields(data, first, last):
                if inner == _NODE_ATTRIBUTE and inner_wire == _LENGTH:
                    _attribute(data, a, z, found, depth)


def _attribute(data: bytes | mmap, start: int, end: int, found: list[Tensor], depth: int) -> None:
    for field, wire, first, last in _fields(data, start, end):
        if wire != _LENGTH:
            continue
        if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _tensor(data, first, last, found)
        elif field in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            _graph(data, first, last, found, depth + 1)


def _tensor(data: bytes | mmap, start: int, end: int, found: list[Tensor]) -> None:
    name, dtype, span = "", 0, None
    external: dict[str, str] = {}
    for field, wire, first, last in _fields(data, start, end):
        if field == _TENSOR_DTYPE and wire == _VARINT:
            dtype = first
        elif wire != _LENGTH:
            continue
        elif field == _TENSOR_NAME:
            name = data[first:last].decode("utf-8", "replace")
        elif field in (_TENSOR_RAW, _TENSOR_FLOATS, _TENSOR_DOUBLES):
            span = (first, last - first)
        elif field == _TENSOR_EXTERNAL:
            external |= [_entry(data, first, last)]
    if dtype not in DTYPES or len(found) >= MAX_TENSORS:
        return
    location = external.get("location")
    if location is None and span is not None:
        found.append(Tensor(name, DTYPES[dtype], *span, None))
    elif location is not None:
        offset, length = external.get("offset", "0"), external.get("length", "")
        if (
            offset.isascii()
            and offset.isdigit()
            and length.isascii()
            and length.isdigit()
            and len(offset + length) < 40
        ):
            found.append(Tensor(name, DTYPES[dtype], int(offset), int(length), location))


def _entry(data: bytes | mmap, start: int, end: int) -> tuple[str, str]:
    """A StringStringEntryProto; texts of a sane length only."""
    texts = {1: "", 2: ""}
    for field, wire, first, last in _fields(data, start, end):
        if field in texts and wire == _LENGTH and last - first <= 4096:
            texts[field] = data[first:last].decode("utf-8", "replace")
    return texts[1], texts[2]
