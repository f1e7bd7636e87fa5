"""Where the numbers are in a model file: ONNX with its weights inside, external data beside an ONNX graph, safetensors.

Promises: reads headers only (weights are skipped, never loaded), in bounded steps; spans lie within the file and do
not overlap. A file that is none of these, or is broken, has no tensors: deltas then work on its bytes. Used where
patches are made, never where they are applied.

Formats: onnx/onnx onnx.proto and docs/ExternalData.md; huggingface/safetensors README, "Format".
"""

import json
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgemodel.artifact.delta import onnx_wire
from edgemodel.artifact.delta.numbers import NUMBER_OF

MAX_SAFETENSORS_HEADER = 100 << 20
"""The format's own cap."""


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """The bytes of one tensor in a file.

    Attributes:
        name: unique in sane files, not in all.
        dtype: as safetensors spells it: ``F32``, ``F16``, ``BF16``, ``I8``, ``U8``, ``F64``.
        offset: of its first byte in the file.
        size: in bytes.
    """

    name: str
    dtype: str
    offset: int
    size: int


def tensors_of(path: Path, *, beside: Mapping[str, Path]) -> list[TensorSpan]:
    """Return the tensors in the file at ``path``, in file order.

    Args:
        path: the file, under whatever name it is kept.
        beside: the files of its artifact by their path in it, the file itself too if its own path is not named so.

    Raises:
        OSError: a file cannot be read.
    """
    names = [PurePosixPath(name) for name, file in beside.items() if file == path] or [
        PurePosixPath(path.name)
    ]
    suffixes = {name.suffix for name in names}
    if ".onnx" in suffixes:
        found = [TensorSpan(t.name, t.dtype, t.offset, t.size) for t in _onnx(path) if t.location is None]
    elif ".safetensors" in suffixes:
        found = _safetensors(path)
    else:
        found = list(_external(names, beside))
    return _within(found, path.stat().st_size)


def _within(spans: Iterable[TensorSpan], size: int) -> list[TensorSpan]:
    """Keep spans that lie in the file and begin after the one before them ended."""
    kept: list[TensorSpan] = []
    end = 0
    for span in sorted(spans, key=lambda span: (span.offset, -span.size)):
        if span.dtype in NUMBER_OF and span.size and span.offset >= end and span.offset + span.size <= size:
            kept.append(span)
            end = span.offset + span.size
    return kept


def _onnx(path: Path) -> list[onnx_wire.Tensor]:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return onnx_wire.tensors(data)


def _external(names: Iterable[PurePosixPath], beside: Mapping[str, Path]) -> Iterator[TensorSpan]:
    """Tensors that the graphs beside it say are in the file that goes by any of ``names``."""
    wanted = set(names)
    for graph, file in beside.items():
        if PurePosixPath(graph).suffix != ".onnx":
            continue
        folder = PurePosixPath(graph).parent
        for tensor in _onnx(file):
            if tensor.location is not None and folder / tensor.location in wanted:
                yield TensorSpan(tensor.name, tensor.dtype, tensor.offset, tensor.size)


def _safetensors(path: Path) -> list[TensorSpan]:
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(MAX_SAFETENSORS_HEADER, path.stat().st_size - 8):
            return []
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return []
    found = []
    for name, entry in header.items() if isinstance(header, dict) else ():
        try:
            first, last = entry["data_offsets"]
            dtype = entry["dtype"]
        except (KeyError, TypeError, ValueError):
            continue  # "__metadata__", or nothing that a tensor looks like
        if type(first) is int and type(last) is int and 0 <= first < last and isinstance(dtype, str):
            found.append(TensorSpan(name, dtype, 8 + length + first, last - first))
    return found
