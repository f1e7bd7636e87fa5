"""Fuzzes the bodies of inference requests and keeps the shortest one for every refusal.

Usage: ``PYTHONPATH=. python tests/corpus/oip/grow.py [SECONDS]``. Starts from the seeds below and from what was ``found``
before; a mutation that is refused in words not seen yet (numbers and names aside), or shorter than the one kept for them,
is kept. Anything but a refusal or a request that is whole ends the run with the body. A file is the length of the JSON in
four bytes little-endian, all ones for JSON alone, then the body.
"""

import json
import random
import re
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np

from inference_server.errors import InvalidRequest
from inference_server.messages import ModelMetadata
from inference_server.oip.json import decode_request
from inference_server.oip.layouts import Layouts
from inference_server.tensors import NUMPY_TYPES, TensorSpec

HERE = Path(__file__).parent
FOUND = HERE / "found"
JSON_ALONE = 2**32 - 1

MODEL = ModelMetadata(
    "m",
    "1",
    (
        TensorSpec("a", "FP32", (-1, 2)),
        TensorSpec("s", "BYTES", (-1,)),
        TensorSpec("b", "BOOL", (2,)),
        TensorSpec("i", "INT8", ()),
    ),
    (TensorSpec("y", "FP32", (-1,)), TensorSpec("z", "FP32", (-1,))),
)
ONE_INPUT = ModelMetadata("r", "1", (TensorSpec("x", "FP16", (-1, 3)),), MODEL.outputs)
LAYOUTS = Layouts()
WORDS = [
    *(b"NaN", b"-Infinity", b"1e999", b"null", b"true", b"-1", b"1.5", b"9223372036854775808", b"[]", b"{}", b"[[", b"{"),
    *(b'"', b'"\\ud800"', b"\xff", b'"binary_data_size":3,', b'"parameters":{"timeout":-1},', b'"sequence_id":7,'),
    *(b'"classification":2,', b'"shared_memory_region":"r",', b'"binary_data":1,', b'"data":[1],', b'"shape":[2,2],'),
]  # fmt: skip


def packed(length: int, body: bytes) -> bytes:
    return length.to_bytes(4, "little") + body


def seeds() -> list[bytes]:
    a, flags = np.array([[1, 2]], np.float32).tobytes(), b"\0\1"
    values = {"a": [[1.5, 2]], "s": ["x", "ü"], "b": [True, False], "i": [7]}
    raw = {"a": a, "s": b"\x01\0\0\0x\x02\0\0\0\xc3\xbc", "b": flags, "i": b"\x07"}
    shapes = {"a": [1, 2], "s": [2], "b": [2], "i": []}
    made = []
    for binary in ((), ("a",), ("s", "b"), ("a", "s", "b", "i")):
        inputs = []
        for spec in MODEL.inputs:
            entry = {"name": spec.name, "datatype": spec.datatype, "shape": shapes[spec.name]}
            if spec.name in binary:
                entry["parameters"] = {"binary_data_size": len(raw[spec.name])}
            else:
                entry["data"] = values[spec.name]
            inputs.append(entry)
        wanted = [{"name": "z", "parameters": {"binary_data": True}}, {"name": "y"}]
        document = {
            "id": "7",
            "inputs": inputs,
            "outputs": wanted,
            "parameters": {"binary_data_output": False, "timeout": 5},
        }
        head = json.dumps(document).encode()
        made.append(
            packed(len(head) if binary else JSON_ALONE, head + b"".join(raw[name] for name in binary))
        )
    return [*made, packed(0, b"\0" * 12)]


def mutate(case: bytes, others: list[bytes]) -> bytes:
    """One to three edits; the announced length of the JSON moves along half of the time."""
    length, body = int.from_bytes(case[:4], "little"), case[4:]
    for _ in range(random.randint(1, 3)):
        at, how = random.randint(0, len(body)), random.randrange(7)
        cut = at + random.randint(1, random.choice([1, 5, 30]))
        if how == 0:
            new = body[:at] + random.choice(WORDS) + body[at:]
        elif how == 1:
            new = body[:at] + body[cut:]
        elif how == 2:
            new = body[:at] + bytes([random.randrange(256)]) + body[at + 1 :]
        elif how == 3:
            new = body[:at] + random.choice(WORDS) + body[cut:]
        elif how == 4:
            start = random.randint(0, len(other := random.choice(others)))
            new = body[:at] + other[start : start + random.randint(1, 60)] + body[at:]
        elif how == 5:
            new = re.sub(
                rb"\d+",
                lambda _: random.choice([b"0", b"3", b"8", b"99999999999999999999"]),
                body,
                count=random.randint(1, 9),
            )
        else:
            new = body[:at]
        if random.random() < 0.5 and length not in (0, JSON_ALONE):
            length = min(JSON_ALONE - 1, max(1, length + len(new) - len(body)))
        body = new
    if random.random() < 0.1:
        length = random.choice([0, 1, len(body), len(body) + 1, JSON_ALONE, JSON_ALONE - 1])
    return packed(length, body)


def told(message: str) -> str:
    """Return a message without its numbers and names: it must be fit to be sent, and carry no payload."""
    assert len(message.encode()) < 1000
    if ": expected a finite number" in message:
        return message[message.index(": expected") :]
    return re.sub(
        r"'[^']*'|\[[-\d, ]*\]|\d+(\.\d+)?(e[+-]?\d+)?|0x\w\w|, found .*|: expected JSON: .*", "#", message
    )


def refusal(case: bytes) -> str:
    """Return in which words a case is refused, numbers and names aside; "" when it is a request, whole as promised."""
    length, body = int.from_bytes(case[:4], "little"), case[4:]
    model = ONE_INPUT if length == 0 else MODEL
    try:
        request = decode_request(body, model, None if length == JSON_ALONE else length, LAYOUTS).request
    except InvalidRequest as error:
        return told(str(error))
    assert set(request.inputs) == {spec.name for spec in model.inputs}
    for spec in model.inputs:
        array = request.inputs[spec.name]
        assert array.dtype == NUMPY_TYPES[spec.datatype]
        assert len(array.shape) == len(spec.shape)
        assert all(wanted in (-1, size) for size, wanted in zip(array.shape, spec.shape, strict=True))
        assert array.nbytes <= 8 * len(body), "more memory than was sent"
    return ""


def main(seconds: float) -> None:
    FOUND.mkdir(exist_ok=True)
    pool, kept = seeds(), {}
    assert not any(map(refusal, pool))
    for path in sorted(FOUND.iterdir()):
        if words := refusal(path.read_bytes()):
            kept[words] = path.read_bytes()
    until, tried = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        case = mutate(random.choice(pool if random.random() < 0.5 else [*kept.values(), *pool]), pool)
        try:
            words = refusal(case)
        except BaseException:
            print(case)
            raise
        tried += 1
        if words and (words not in kept or len(case) < len(kept[words])):
            kept[words] = case
    for path in FOUND.iterdir():
        path.unlink()
    for words, case in kept.items():
        (FOUND / sha256(words.encode()).hexdigest()[:12]).write_bytes(case)
    print(f"{tried} bodies tried, {len(kept)} refusals kept")
    for words in sorted(kept):
        print(f"  {words[:150]}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
