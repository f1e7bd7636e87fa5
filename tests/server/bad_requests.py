"""Whole HTTP requests that are wrong in one way each, and what is to be answered: which status, and which words.

They are for the model of ``onnx_models.mlp`` under the name m: x of FP32 [batch, 64] → y of FP32 [batch, 10]; the server
takes bodies of up to `BODY_BYTES`. Each gets a 4xx; the message names the field that is wrong.
"""

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backports import zstd

INFER = "/v2/models/m/infer"
BODY_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class BadRequest:
    """One wrong request.

    Attributes:
        name: what is wrong.
        content: the request.
        status: to be answered.
        words: of the answer's message.
    """

    name: str
    content: bytes
    status: int
    words: str


def post(body: bytes, *, target: str = INFER, headers: str = "", length: int | str | None = None) -> bytes:
    """Return a POST; ``headers`` are whole lines."""
    stated = len(body) if length is None else length
    return f"POST {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {stated}\r\n\r\n".encode() + body


def tensor(**changes: Any) -> dict[str, Any]:
    """Return the right input with changes; None takes a member away."""
    fields = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64, **changes}
    return {name: value for name, value in fields.items() if value is not None}


def document(*inputs: dict[str, Any], **members: Any) -> bytes:
    """Return a request's JSON."""
    return json.dumps({"inputs": list(inputs), **members}).encode()


GOOD = post(document(tensor()))
RAW = struct.pack("<64f", *[0.5] * 64)


def binary(*, data: bytes = RAW, length: int | str | None = None, size: Any = 256, **changes: Any) -> bytes:
    """Return a request with binary tensor data; ``length`` is what the header says of the JSON."""
    stated = tensor(**{"data": None, "parameters": {"binary_data_size": size}, **changes})
    head = document(stated)
    line = f"Inference-Header-Content-Length: {len(head) if length is None else length}\r\n"
    return post(head + data, headers=line)


GOOD_BINARY = binary()


def _with_both() -> bytes:
    head = document(tensor(parameters={"binary_data_size": len(RAW)}))
    return post(head + RAW, headers=f"Inference-Header-Content-Length: {len(head)}\r\n")


def _shapes() -> list[BadRequest]:
    shapes: dict[str, Any] = {
        "too small": [1, 63],
        "of another rank": [64],
        "negative": [-1, 64],
        "beyond memory": [2**40, 64],
        "whose product overflows": [2**62, 64],
        "beyond 64 bits": [2**63, 64],
        "beyond any bits": [10**200, 64],
        "of rank 10,000": [1] * 10_000,
        "of floats": [1.0, 64.0],
        "of booleans": [True, 64],
        "of strings": ["1", "64"],
        "that is a number": 64,
        "that is an object": {"0": 1},
    }
    return [
        BadRequest(f"shape {name}", post(document(tensor(shape=shape))), 400, "inputs[0].shape")
        for name, shape in shapes.items()
    ]


def _data() -> list[BadRequest]:
    data: dict[str, Any] = {
        "too short": [1],
        "too long": [1] * 65,
        "of nulls": [[None] * 64],
        "of strings": ["s" * 1000] * 64,
        "of objects": [{}] * 64,
        "nested too deep": [[[[[[1]]]]]],
        "ragged": [[1] * 63, [1]],
        "beyond FP32": [1e39] * 64,
        "that is a string": "0.5",
        "that is an object": {},
    }
    found = [
        BadRequest(f"data {name}", post(document(tensor(data=values))), 400, "inputs[0].data")
        for name, values in data.items()
    ]
    text = json.dumps({"inputs": [tensor(data=["?"] + [1] * 63)]})
    numbers = {
        "NaN": "NaN",
        "Infinity": "-Infinity",
        "1e999": "1e999",
        "with a thousand digits": "9" * 1000,
        "with 100,000 digits": "9" * 100_000,
        "with a leading zero": "01",
        "in hexadecimal": "0x1",
    }
    found += [
        BadRequest(f"number {name}", post(text.replace('"?"', number).encode()), 400, "")
        for name, number in numbers.items()
    ]
    return found


def _documents() -> list[BadRequest]:
    bodies: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "body"),
        "cut short": (document(tensor())[:-5], "body"),
        "two documents": (document(tensor()) * 2, "body"),
        "invalid UTF-8": (document(tensor(name="?")).replace(b"?", b"\xff\xfe"), "body"),
        "UTF-16": (document(tensor()).decode().encode("utf-16"), "body"),
        "a byte order mark": (b"\xef\xbb\xbf" + document(tensor()), "body"),
        "lists 100,000 deep": (b"[" * 100_000, "body"),
        "objects 50,000 deep": (b'{"inputs":' * 50_000, "body"),
        "closed lists 20,000 deep": (b"[" * 20_000 + b"]" * 20_000, "body"),
        "half of a surrogate pair": (document(tensor(name="\ud800")), "body"),
        "half of a surrogate pair beside NaN": (b'{"in\\ud800":[NaN]}', "finite"),
        "a long name beside NaN": (b'{"%s":[NaN]}' % (b"n" * 50_000), "finite"),
        "a list": (b"[]", "body"),
        "null": (b"null", "body"),
        "no inputs": (b"{}", "inputs"),
        "inputs that are null": (b'{"inputs":null}', "inputs"),
        "inputs that are strings": (b'{"inputs":["x"]}', "inputs[0]"),
        "no input": (document(), "input"),
        "an unknown input": (document(tensor(name="z")), "inputs[0].name"),
        "an input without a name": (document(tensor(name=None)), "inputs[0].name"),
        "an input whose name is a number": (document(tensor(name=1)), "inputs[0].name"),
        "an input whose name is long": (document(tensor(name="n" * 100_000)), "inputs[0].name"),
        "an input twice": (document(tensor(), tensor()), "x"),
        "a thousand inputs": (document(*[tensor(name=f"x{n}", data=[1]) for n in range(1000)]), "input"),
        "no datatype": (document(tensor(datatype=None)), "inputs[0].datatype"),
        "another datatype": (document(tensor(datatype="BYTES")), "inputs[0].datatype"),
        "an unknown datatype": (document(tensor(datatype="FP8")), "inputs[0].datatype"),
        "a datatype that is a list": (document(tensor(datatype=["FP32"])), "inputs[0].datatype"),
        "no shape": (document(tensor(shape=None)), "inputs[0].shape"),
        "no data": (document(tensor(data=None)), "inputs[0]"),
        "an unknown output": (document(tensor(), outputs=[{"name": "q"}]), "outputs[0].name"),
        "outputs that are strings": (document(tensor(), outputs=["y"]), "outputs[0]"),
        "outputs that are an object": (document(tensor(), outputs={"name": "y"}), "outputs"),
        "an id that is an object": (document(tensor(), id={}), "id"),
        "parameters that are a list": (document(tensor(), parameters=[1]), "parameters"),
        "a negative timeout": (document(tensor(), parameters={"timeout": -1}), "timeout"),
        "a sequence": (document(tensor(), parameters={"sequence_id": 1}), "sequence_id"),
        "300 kB of zeros": (bytes(300_000), "body"),  # large enough to be read straight into its place
    }
    return [BadRequest(name, post(body), 400, words) for name, (body, words) in bodies.items()]


def _binary() -> list[BadRequest]:
    size = "binary_data_size"
    wrong: dict[str, tuple[bytes, str]] = {
        "less than the shape takes": (binary(size=252, data=RAW[:252]), size),
        "more than the shape takes": (binary(size=260, data=RAW + b"more"), size),
        "more than came": (binary(size=10**9), size),
        "beyond 64 bits": (binary(size=10**30), size),
        "negative": (binary(size=-256), size),
        "a string": (binary(size="256"), size),
        "a fraction": (binary(size=256.5), size),
        "true": (binary(size=True), size),
        "null": (binary(size=None, parameters={"binary_data_size": None}), ""),
        "beside data in JSON": (_with_both(), "data"),
        "that leaves bytes over": (binary(data=RAW + b"over"), ""),
        "of a shape beyond memory": (binary(shape=[2**40, 64]), "shape"),
    }
    found = [
        BadRequest(f"binary data {name}", content, 400, words) for name, (content, words) in wrong.items()
    ]
    header = "Inference-Header-Content-Length"
    lengths: list[int | str] = [10**9, 10**40, -1, "x", "1.5", "0x10", 5]
    found += [
        BadRequest(f"{header} {length}", binary(length=length), 400, header if length != 5 else "body")
        for length in lengths
    ]
    raw = post(RAW[1:], headers=f"{header}: 0\r\n")
    return [*found, BadRequest("a raw body that is no whole row", raw, 400, "body")]


def _encodings() -> list[BadRequest]:
    right = document(tensor())
    bomb = b"[" * 20_000_000
    packed: dict[str, tuple[str, bytes, int]] = {
        "an unknown encoding": ("br", right, 415),
        "two encodings": ("gzip, gzip", gzip.compress(gzip.compress(right)), 415),
        "gzip that is none": ("gzip", right, 400),
        "gzip cut short": ("gzip", gzip.compress(right)[:-9], 400),
        "gzip with a wrong sum": ("gzip", gzip.compress(right)[:-8] + bytes(8), 400),
        "gzip with more behind it": ("gzip", gzip.compress(right) + b"more", 400),
        "a gzip bomb": ("gzip", gzip.compress(bomb), 413),
        "deflate that is none": ("deflate", right, 400),
        "a deflate bomb": ("deflate", zlib.compress(bomb), 413),
        "zstd that is none": ("zstd", right, 400),
        "zstd cut short": ("zstd", zstd.compress(right)[:-3], 400),
        "a zstd bomb": ("zstd", zstd.compress(bomb), 413),
    }
    return [
        BadRequest(name, post(body, headers=f"Content-Encoding: {encoding}\r\n"), status, "")
        for name, (encoding, body, status) in packed.items()
    ]


def _heads() -> list[BadRequest]:
    get = "GET {} HTTP/1.1\r\nHost: x\r\n{}\r\n"
    body = document(tensor())
    return [
        BadRequest("an unknown model", post(body, target="/v2/models/none/infer"), 404, "none"),
        BadRequest("a long model name", post(body, target=f"/v2/models/{'n' * 20_000}/infer"), 404, "model"),
        BadRequest("an unknown version", post(body, target="/v2/models/m/versions/9/infer"), 404, "9"),
        BadRequest("an unknown path", get.format("/v3", "").encode(), 404, "path"),
        BadRequest("a path with dots", get.format("/v2/../../etc/passwd", "").encode(), 404, "path"),
        BadRequest("a path that is no UTF-8", get.format("/v2/models/%ff", "").encode(), 400, "UTF-8"),
        BadRequest("a GET of an inference", get.format(INFER, "").encode(), 405, "POST"),
        BadRequest("a POST of metadata", post(b"", target="/v2/models/m"), 405, "GET"),
        BadRequest("an unknown method", b"PROPFIND /v2 HTTP/1.1\r\nHost: x\r\n\r\n", 405, "PROPFIND"),
        BadRequest("no method at all", b"\x00\x01\x02\x03\r\n\r\n", 400, "malformed"),
        BadRequest("two lengths", post(body, headers="Content-Length: 5\r\n"), 400, "malformed"),
        BadRequest(
            "length and chunks", post(body, headers="Transfer-Encoding: chunked\r\n"), 400, "malformed"
        ),
        BadRequest("a negative length", post(body, length=-1), 400, "malformed"),
        BadRequest("a length beyond 64 bits", post(body, length=10**30), 400, "malformed"),
        BadRequest("a body of 10 GB", post(body, length=10**10), 413, "body"),
        BadRequest("a line without a colon", get.format("/v2", "none\r\n").encode(), 400, "malformed"),
        BadRequest("a head of 100 kB", get.format("/v2", f"X: {'x' * 100_000}\r\n").encode(), 431, "header"),
        BadRequest("a thousand headers", get.format("/v2", "X: y\r\n" * 1000).encode(), 431, "headers"),
        BadRequest(
            "a chunk size that is none",
            f"POST {INFER} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
            400,
            "malformed",
        ),
    ]


_FAMILIES: tuple[Callable[[], list[BadRequest]], ...] = (
    _shapes,
    _data,
    _documents,
    _binary,
    _encodings,
    _heads,
)
BAD = [one for family in _FAMILIES for one in family()]
