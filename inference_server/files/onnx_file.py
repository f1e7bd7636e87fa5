"""Reads just enough of an ONNX file to judge it before ONNX Runtime does: which weights files it names.

ONNX Runtime's own words for a missing or escaping weights file differ by release; these checks do not.
Walks the protobuf wire format over a buffer (an mmap: nothing is copied), bounded by its length. It is no
validator: what it cannot follow is left for ONNX Runtime to refuse.

Field numbers: onnx/onnx.proto3 (ModelProto.graph 7, .functions 25; GraphProto.node 1, .initializer 5,
.sparse_initializer 15; NodeProto.attribute 5; FunctionProto.node 7; AttributeProto.t 5, .g 6, .tensors 10,
.graphs 11, .sparse_tensor 22; TensorProto.external_data 13; StringStringEntryProto.key 1, .value 2). Wire
format: protobuf.dev/programming-guides/encoding.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_server.errors import MissingExternalData
from inference_server.files.model_directory import ModelFiles, inside

Buffer = bytes | mmap.mmap

_MODEL, _GRAPH, _NODE, _FUNCTION, _ATTRIBUTE, _TENSOR, _SPARSE, _ENTRY = range(8)

# message kind → field number → kind of the sub-message to descend into
_CHILDREN: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _FUNCTION: {7: _NODE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}
_EXTERNAL_DATA = 13
_DEPTH = 64


class _MalformedError(Exception):
    """The bytes do not follow the wire format at this place."""


@dataclass(frozen=True, slots=True)
class ExternalData:
    """One weights file that a model names.

    Attributes:
        location: Path relative to the ONNX file's directory, as the model states it.
        end: Number of bytes the file must have at least for what the model reads from it.
    """

    location: str
    end: int


def _varint(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _MalformedError


def _fields(buffer: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield `(field number, start, end)` of each length-delimited field; skip the others."""
    while at < end:
        tag, at = _varint(buffer, at, end)
        wire = tag & 7
        if wire == 2:
            length, at = _varint(buffer, at, end)
            if length > end - at:
                raise _MalformedError
            yield tag >> 3, at, at + length
            at += length
        elif wire == 0:
            _, at = _varint(buffer, at, end)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise _MalformedError


def _whole_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _external(buffer: Buffer, at: int, end: int) -> ExternalData | None:
    """Return the external data entry of the tensor at these bytes, if it has one."""
    entries: dict[str, str] = {}
    for field, start, stop in _fields(buffer, at, end):
        if field == _EXTERNAL_DATA:
            pair = {
                number: bytes(buffer[a:b]).decode("utf-8", "replace")
                for number, a, b in _fields(buffer, start, stop)
            }
            entries[pair.get(1, "")] = pair.get(2, "")
    if "location" not in entries:
        return None
    end_of_data = _whole_number(entries.get("offset", "0")) + _whole_number(entries.get("length", "0"))
    return ExternalData(entries["location"], end_of_data)


def _tensors(buffer: Buffer) -> Iterator[tuple[int, int]]:
    """Yield where each tensor of the model lies, of its graph, subgraphs, functions and attributes."""
    stack = [(_MODEL, 0, len(buffer), 0)]
    while stack:
        kind, at, end, depth = stack.pop()
        children = _CHILDREN[kind]
        for field, start, stop in _fields(buffer, at, end):
            child = children.get(field)
            if child == _TENSOR:
                yield start, stop
            elif child is not None and depth < _DEPTH:
                stack.append((child, start, stop, depth + 1))


def external_data(buffer: Buffer) -> list[ExternalData]:
    """Return the weights files a model names, each once, with the length it must have.

    Args:
        buffer: A serialized ModelProto. Malformed bytes end the walk: ONNX Runtime says what is wrong.
    """
    if buffer.find(b"location") < 0:
        return []
    needed: dict[str, int] = {}
    try:
        for start, stop in _tensors(buffer):
            if data := _external(buffer, start, stop):
                needed[data.location] = max(needed.get(data.location, 0), data.end)
    except _MalformedError:
        pass
    return [ExternalData(location, end) for location, end in needed.items()]


def has_loops(files: ModelFiles) -> bool:
    """Return whether a model repeats parts of itself as often as its inputs say, so that their size does not tell its price.

    Looks for the names of such operators as a node would have them (NodeProto.op_type, field 4), in all subgraphs at once.
    """
    if files.entry.stat().st_size == 0:
        return False
    with files.entry.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        return any(buffer.find(name) >= 0 for name in (b'"\x04Loop', b'"\x04Scan'))


def check_external_data(files: ModelFiles) -> list[Path]:
    """Return the weights files of a model, each present, long enough and inside the model directory.

    Raises:
        MissingExternalData: One is not; the message names it.
    """
    if files.entry.stat().st_size == 0:
        return []
    with files.entry.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        named = external_data(buffer)
    found = []
    for data in named:
        # Relative to the ONNX file, whose directory may be below the root.
        path = inside(
            files.root,
            data.location,
            f"{files.entry.name}: external data",
            MissingExternalData,
            files.entry.parent,
        )
        if not path.is_file():
            raise MissingExternalData(
                f"{files.entry.name}: expected the weights file {data.location!r} beside it, found none; "
                "deliver every file of the artifact"
            )
        if (size := path.stat().st_size) < data.end:
            raise MissingExternalData(
                f"{files.entry.name}: expected {data.location!r} to have at least {data.end} bytes, "
                f"found {size}; deliver the artifact again"
            )
        found.append(path)
    return found
