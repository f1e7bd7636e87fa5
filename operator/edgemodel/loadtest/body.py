"""Tensors as the bodies of inference requests: JSON, or with the data in binary behind it. Pure.

Sources: the Open Inference Protocol v2, "Inference Request JSON Object"; Triton's "Binary Tensor Data Extension" (little
endian, row major; a string is four bytes of length and its UTF-8).
"""

import json
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgemodel.errors import Stalled
from edgemodel.loadtest.metadata import DATATYPES

Value = bool | int | float | str

CODES = {
    "BOOL": "B",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
"""Type codes of ``array``, whose sizes are these on every platform that runs ONNX Runtime."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input with its values, flattened in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Value]


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request, and the headers that belong to it."""

    content: bytes
    headers: tuple[tuple[str, str], ...]


def as_json(tensors: Sequence[Tensor]) -> Body:
    """Return a request whose data is JSON.

    Raises:
        Stalled: ``InvalidSpec``; a datatype that JSON can't carry.
    """
    for tensor in tensors:
        if tensor.datatype == "BF16":
            raise Stalled(
                "InvalidSpec", f"input {tensor.name!r} is BF16, which JSON can't carry: use --binary"
            )
    inputs = [{**_head(tensor), "data": list(tensor.data)} for tensor in tensors]
    content = json.dumps({"inputs": inputs}, separators=(",", ":")).encode()
    return Body(content, (("Content-Type", "application/json"),))


def as_binary(tensors: Sequence[Tensor]) -> Body:
    """Return a request whose data, and whose answer's, is binary.

    Raises:
        Stalled: ``InvalidSpec``; a value does not fit its datatype.
    """
    inputs, parts = [], []
    for tensor in tensors:
        raw = pack(tensor)
        inputs.append({**_head(tensor), "parameters": {"binary_data_size": len(raw)}})
        parts.append(raw)
    document = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    head = json.dumps(document, separators=(",", ":")).encode()
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Inference-Header-Content-Length", str(len(head))),
    )
    return Body(b"".join([head, *parts]), headers)


def _head(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def pack(tensor: Tensor) -> bytes:
    """Return a tensor's data in binary.

    Raises:
        Stalled: ``InvalidSpec``; a value does not fit the datatype.
    """
    try:
        if tensor.datatype == "BYTES":
            texts = [str(value).encode() for value in tensor.data]
            return b"".join(struct.pack("<I", len(text)) + text for text in texts)
        if tensor.datatype == "FP16":
            return struct.pack(f"<{len(tensor.data)}e", *tensor.data)
        if tensor.datatype == "BF16":  # the upper half of an FP32
            whole = struct.pack(f"<{len(tensor.data)}f", *tensor.data)
            return b"".join(whole[at + 2 : at + 4] for at in range(0, len(whole), 4))
        values: array[Any] = array(CODES[tensor.datatype], tensor.data)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise Stalled(
            "InvalidSpec", f"input {tensor.name!r}: the data is no {tensor.datatype}: {error}"
        ) from None
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def read(content: bytes, source: str) -> list[list[Tensor]]:
    """Read requests from a file: one request's JSON, or a list of them.

    Args:
        content: of the file.
        source: its name, for messages.

    Raises:
        Stalled: ``InvalidSpec``; it holds something else.
    """
    try:
        document = json.loads(content)
        requests = document if isinstance(document, list) else [document]
        found = [[_tensor(one) for one in request["inputs"]] for request in requests]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Stalled(
            "InvalidSpec",
            f"{source}: expected the JSON of an inference request, "
            f'{{"inputs": [{{"name", "datatype", "shape", "data"}}]}}, or a list of them ({error!r})',
        ) from None
    if not found or not all(found):
        raise Stalled("InvalidSpec", f"{source}: expected at least one request with inputs")
    return found


def _tensor(found: Any) -> Tensor:
    if found["datatype"] not in DATATYPES:
        raise ValueError(f"datatype {found['datatype']!r}")
    return Tensor(
        str(found["name"]),
        found["datatype"],
        tuple(int(size) for size in found["shape"]),
        list(_flat(found["data"])),
    )


def _flat(data: list[Any]) -> Iterator[Value]:
    for value in data:
        if isinstance(value, list):
            yield from _flat(value)
        elif isinstance(value, (bool, int, float, str)):
            yield value
        else:
            raise TypeError(f"data holds {value!r}")
