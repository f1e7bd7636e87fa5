"""Reads answers of inference servers, to compare them: an HTTP/1.1 answer's bytes, and the Open Inference Protocol in them.

Pure. Promises: any bytes either become tensors whose data fit their shapes, or are called unreadable. Pods are not trusted;
what is read is bounded by the caller's limit on bytes, and by ``MAX_OUTPUTS``.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_OUTPUTS = 256
MAX_DIMENSIONS = 32
FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
_CODES = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
"""Of ``struct``, in which the binary extension's tensors are read, but for BF16: it is the upper half of an FP32."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")
_HEX = re.compile(rb"[0-9a-fA-F]{1,8}")

Value = bool | int | float | str | bytes


class Unreadable(ValueError):
    """It is no answer that can be compared; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name; of several of one name the last."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """One output, its data flat, in row-major order."""

    datatype: str
    shape: tuple[int, ...]
    data: tuple[Value, ...]


def read_answer(raw: bytes) -> Answer:
    """Read one whole answer, as HAProxy passes it on.

    Raises:
        Unreadable: it is not whole, or no HTTP.
    """
    while True:
        head, found, body = raw.partition(b"\r\n\r\n")
        status = _STATUS.match(head + b"\r")
        if not found or status is None:
            raise Unreadable("no whole HTTP answer")
        if status[1][:1] != b"1":
            break
        raw = body  # 100 Continue and the like come before the answer
    headers = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunked(body)
    elif (length := headers.get("content-length")) is not None and length != str(len(body)):
        raise Unreadable("another length than it says")
    return Answer(int(status[1]), headers, body)


def read_outputs(answer: Answer) -> dict[str, Tensor]:
    """Read an inference's outputs, by name.

    Raises:
        Unreadable: it is not what the protocol says, or compressed, or in a datatype that is not known.
    """
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise Unreadable("it is compressed")
    text, binary = answer.body, b""
    if (length := answer.headers.get("inference-header-content-length")) is not None:
        if not (length.isascii() and length.isdecimal() and len(length) < 12 and int(length) <= len(text)):
            raise Unreadable("a length of its JSON that cannot be")
        text, binary = text[: int(length)], text[int(length) :]
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("no JSON") from None
    entries = document.get("outputs") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_OUTPUTS:
        raise Unreadable("no outputs")
    found: dict[str, Tensor] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or entry["name"] in found:
            raise Unreadable("an output without a name of its own")
        datatype, shape = entry.get("datatype"), _shape(entry.get("shape"))
        if not isinstance(datatype, str):
            raise Unreadable("an output without a datatype")
        parameters = entry.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            data = _from_json(entry.get("data"), datatype, math.prod(shape))
        elif type(size) is int and 0 <= size <= len(binary):
            data, binary = _from_bytes(binary[:size], datatype, math.prod(shape)), binary[size:]
        else:
            raise Unreadable("binary data of a size that cannot be")
        found[entry["name"]] = Tensor(datatype, shape, data)
    return found


def _unchunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    while True:
        line, found, body = body.partition(b"\r\n")
        size = _HEX.fullmatch(line.split(b";", 1)[0].strip())
        if not found or size is None:
            raise Unreadable("no whole chunked body")
        length = int(size[0], 16)
        if length == 0:
            return b"".join(pieces)
        if body[length : length + 2] != b"\r\n":
            raise Unreadable("no whole chunked body")
        pieces.append(body[:length])
        body = body[length + 2 :]


def _shape(found: Any) -> tuple[int, ...]:
    if not (
        isinstance(found, list)
        and len(found) <= MAX_DIMENSIONS
        and all(type(one) is int and 0 <= one < 1 << 40 for one in found)
    ):
        raise Unreadable("an output without a shape")
    return tuple(found)


def _from_json(data: Any, datatype: str, size: int) -> tuple[Value, ...]:
    """Return flat values; null is what JSON has for a number that is none."""
    flat: list[Any] = []
    waiting = [data]
    if not isinstance(data, list):
        raise Unreadable("an output without data")
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(reversed(one))
        else:
            flat.append(one)
    if len(flat) != size:
        raise Unreadable("data that do not fit the shape")
    if datatype in FLOATS:
        if not all(one is None or type(one) in (int, float) for one in flat):
            raise Unreadable("data that are no numbers")
        try:
            return tuple(math.nan if one is None else float(one) for one in flat)
        except OverflowError:
            raise Unreadable("a number beyond all floats") from None
    kind = bool if datatype == "BOOL" else str if datatype == "BYTES" else int
    if datatype not in _CODES and datatype != "BYTES":
        raise Unreadable("a datatype that is not known")
    if not all(type(one) is kind for one in flat):
        raise Unreadable("data of another type than they say")
    return tuple(flat)


def _from_bytes(data: bytes, datatype: str, size: int) -> tuple[Value, ...]:
    if datatype == "BYTES":
        return _strings(data, size)
    if datatype == "BF16":
        data, datatype = b"".join(b"\0\0" + data[at : at + 2] for at in range(0, len(data), 2)), "FP32"
    code = _CODES.get(datatype)
    if code is None:
        raise Unreadable("a datatype that is not known")
    if len(data) != size * struct.calcsize(f"<{code}"):
        raise Unreadable("data that do not fit the shape")
    return struct.unpack(f"<{size}{code}", data)


def _strings(data: bytes, size: int) -> tuple[Value, ...]:
    """Read strings, each behind four bytes of its length."""
    found: list[Value] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            break
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        found.append(data[at : at + length])
        at += length
    if at != len(data) or len(found) != size:
        raise Unreadable("data that do not fit the shape")
    return tuple(found)
