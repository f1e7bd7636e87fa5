"""Requests as they go over the wire: OIP JSON, its binary tensor extension, gRPC; and what answers hold.

Written against the formats' own descriptions and not with the server's code, so that both cannot be wrong in the same way:
https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

HEADER_LENGTH = "Inference-Header-Content-Length"
_DATATYPES = {"float32": "FP32", "int64": "INT64"}
_LENGTH_DELIMITED, _VARINT = 2, 0


@dataclass(frozen=True)
class Post:
    """One HTTP request.

    Attributes:
        path: of the URL.
        body: as sent.
        headers: besides the usual.
    """

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def as_json(model: str, inputs: Mapping[str, Array], timeout: int | None = None) -> Post:
    """Return an inference request in JSON; ``timeout`` in microseconds, as Triton's parameter of that name."""
    document: dict[str, Any] = {
        "inputs": [
            {**_described(name, array), "data": array.ravel().tolist()} for name, array in inputs.items()
        ]
    }
    if timeout is not None:
        document["parameters"] = {"timeout": timeout}
    return Post(f"/v2/models/{model}/infer", json.dumps(document, separators=(",", ":")).encode())


def as_binary(model: str, inputs: Mapping[str, Array]) -> Post:
    """Return an inference request whose tensors, and those of its answer, are binary."""
    document = {
        "inputs": [
            {**_described(name, array), "parameters": {"binary_data_size": array.nbytes}}
            for name, array in inputs.items()
        ],
        "parameters": {"binary_data_output": True},
    }
    header = json.dumps(document, separators=(",", ":")).encode()
    return Post(
        f"/v2/models/{model}/infer",
        header + b"".join(array.tobytes() for array in inputs.values()),
        {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))},
    )


def from_json(body: bytes) -> Array:
    """Return the first output of a JSON answer, flat."""
    return np.asarray(json.loads(body)["outputs"][0]["data"], "f4")


def from_binary(body: bytes, headers: Mapping[str, str]) -> Array:
    """Return the first output, float32, of a binary answer, flat."""
    length = int(headers[HEADER_LENGTH.lower()])
    size = json.loads(body[:length])["outputs"][0]["parameters"]["binary_data_size"]
    return np.frombuffer(body[length : length + size], "f4")


def only_binary(body: bytes) -> Array:
    """Return the only output, float32, of a binary answer whose headers are not at hand, flat."""
    document, length = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    size = document["outputs"][0]["parameters"]["binary_data_size"]
    return np.frombuffer(body[len(body) - size :], "f4") if length + size <= len(body) else np.empty(0, "f4")


def as_grpc(model: str, inputs: Mapping[str, Array]) -> bytes:
    """Return a ``ModelInferRequest`` with raw contents (grpc_predict_v2.proto)."""
    message = _bytes(1, model.encode())
    for name, array in inputs.items():
        tensor = _bytes(1, name.encode()) + _bytes(2, _DATATYPES[array.dtype.name].encode())
        message += _bytes(5, tensor + _bytes(3, b"".join(map(_varint, array.shape))))
    return message + b"".join(_bytes(7, array.tobytes()) for array in inputs.values())


def from_grpc(message: bytes) -> Array:
    """Return the first raw output, float32, of a ``ModelInferResponse``, flat."""
    return np.frombuffer(next(value for number, value in _fields(message) if number == 6), "f4")


def framed(message: bytes) -> bytes:
    """Return a gRPC message as HTTP/2 carries it: uncompressed, with its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _described(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "datatype": _DATATYPES[array.dtype.name], "shape": list(array.shape)}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(value)) + value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers and values of the length-delimited fields; skip numbers."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(message):
        tag = varint()
        if tag & 7 == _VARINT:
            varint()
            continue
        if tag & 7 != _LENGTH_DELIMITED:
            raise ValueError(f"expected fields of bytes or whole numbers, found wire type {tag & 7}")
        length = varint()
        yield tag >> 3, message[at : at + length]
        at += length
