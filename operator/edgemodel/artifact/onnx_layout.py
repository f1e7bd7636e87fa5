"""Moves an ONNX model's large weights into one external file, each at a page boundary, so that a server can map them.

Promises: the input is never changed; the same input gives the same bytes; tensors keep their values, names and order, and
everything else in the model is untouched. Weights that are external already are gathered into the same new file. Leaves to
others: whether the model is any good (the inference server loads it). Needs the ``onnx`` package (extra ``cli``).

Format: onnx/onnx docs/ExternalData.md; ONNX Runtime maps a file whose offsets are multiples of the page size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgemodel.errors import Stalled

if TYPE_CHECKING:
    import onnx

THRESHOLD = 1 << 20
"""Weights of a model are moved when they are at least so many bytes together; below, one file is simpler to handle."""
SMALL = 1024
"""A tensor with fewer bytes stays inside: shapes and axes must be at hand when the graph is read."""
PAGE = 1 << 12
"""Offsets are multiples of this: the page size of most Linux machines."""
LARGE_PAGE = 1 << 16
"""Offsets of tensors of 1 MiB and more are multiples of this: the largest page size that Linux uses on arm64."""
SUFFIX = "_data"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the published form of one model is."""

    model: Path
    weights: Path | None
    """None when the weights stayed inside."""


def lay_out(model: Path, folder: Path) -> Layout:
    """Write the published form of ``model`` into ``folder``; a model with few weights is taken as it is.

    Raises:
        Stalled: ``MalformedArtifact``; it is no ONNX model, or its external weights are missing or outside its folder.
    """
    import onnx

    document = _load(model)
    tensors = list(_tensors(document.graph))
    for tensor in tensors:
        _make_raw(tensor, onnx)
    external = [tensor for tensor in tensors if onnx.external_data_helper.uses_external_data(tensor)]
    inside = sum(len(tensor.raw_data) for tensor in tensors if tensor not in external)
    if not external and inside < THRESHOLD:
        return Layout(model, None)
    weights = folder / (model.name + SUFFIX)
    with weights.open("wb") as out:
        for tensor in tensors:
            _move(tensor, model.parent, out, weights.name, onnx)
    target = folder / model.name
    with target.open("wb") as file:
        file.write(document.SerializeToString(deterministic=True))
    return Layout(target, weights)


def external_files(model: Path) -> set[Path]:
    """Return the files that hold a model's external weights, so that they are not published a second time.

    Raises:
        Stalled: as ``lay_out``.
    """
    import onnx

    document = _load(model)
    return {
        _external(tensor, model.parent)[0]
        for tensor in _tensors(document.graph)
        if onnx.external_data_helper.uses_external_data(tensor)
    }


def _load(model: Path) -> "onnx.ModelProto":
    import onnx
    from google.protobuf.message import DecodeError

    try:
        document = onnx.load(model, load_external_data=False)
    except (DecodeError, UnicodeDecodeError) as error:
        raise _malformed(model, f"it cannot be read as ONNX ({error})") from None
    if not document.ir_version or not document.HasField("graph"):
        raise _malformed(model, "it has no graph")
    return document


def _tensors(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
    """Yield the initializers of a graph and of the graphs within its nodes, in the order they are written."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _make_raw(tensor: "onnx.TensorProto", onnx: object) -> None:
    """Turn a large tensor that is written as a list of numbers into raw bytes: only those can lie outside."""
    helper = onnx.numpy_helper  # type: ignore[attr-defined]
    if tensor.data_type == tensor.STRING or tensor.HasField("raw_data") or len(tensor.external_data):
        return
    floats = len(tensor.float_data) + len(tensor.double_data)
    integers = len(tensor.int32_data) + len(tensor.int64_data) + len(tensor.uint64_data)
    if floats + integers < SMALL:
        return
    raw = helper.from_array(helper.to_array(tensor), tensor.name)
    raw.doc_string = tensor.doc_string
    tensor.CopyFrom(raw)


def _move(tensor: "onnx.TensorProto", folder: Path, out: BinaryIO, name: str, onnx: object) -> None:
    helper = onnx.external_data_helper  # type: ignore[attr-defined]
    if helper.uses_external_data(tensor):
        source, offset, length = _external(tensor, folder)
        start = _align(out, length)
        with source.open("rb") as file:
            file.seek(offset)
            copied = _copy(file, out, length)
        if copied != length:
            raise _malformed(
                source, f"weights {tensor.name!r} need {length} bytes from {offset}, there are {copied}"
            )
        size = length
    elif len(tensor.raw_data) >= SMALL:
        size = len(tensor.raw_data)
        start = _align(out, size)
        out.write(tensor.raw_data)
    else:
        return
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = type(tensor).EXTERNAL
    for key, value in (("location", name), ("offset", str(start)), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _external(tensor: "onnx.TensorProto", folder: Path) -> tuple[Path, int, int]:
    said = {entry.key: entry.value for entry in tensor.external_data}
    source = folder / said.get("location", "")
    if not source.resolve().is_relative_to(folder.resolve()) or not source.is_file():
        raise _malformed(
            folder,
            f"weights {tensor.name!r} lie in {said.get('location')!r}, which is not a file beside the model",
        )
    try:
        offset = int(said.get("offset", 0))
        length = int(said.get("length", source.stat().st_size - offset))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0:
        raise _malformed(
            source,
            f"weights {tensor.name!r} have an offset {said.get('offset')!r} or length {said.get('length')!r} "
            "that is outside the file",
        )
    return source, offset, length


def _align(out: BinaryIO, size: int) -> int:
    out.write(bytes(-out.tell() % (LARGE_PAGE if size >= THRESHOLD else PAGE)))
    return out.tell()


def _copy(source: BinaryIO, out: BinaryIO, length: int) -> int:
    left = length
    while left and (piece := source.read(min(left, 1 << 20))):
        out.write(piece)
        left -= len(piece)
    return length - left


def _malformed(path: Path, what: str) -> Stalled:
    return Stalled("MalformedArtifact", f"{path}: {what}")
