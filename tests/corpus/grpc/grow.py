"""Fuzzes the gRPC messages of inference requests and keeps the shortest one for every refusal.

Usage: ``PYTHONPATH=. python tests/corpus/grpc/grow.py [SECONDS]``. Starts from right messages and from what was ``found``
before; a mutation that is refused in words not seen yet (names and numbers aside), or shorter than the one kept for them,
is kept. Anything but a refusal, or one that takes a second, ends the run with the message in ``trial``.
"""

import random
import re
import struct
import sys
import time
from hashlib import sha256
from pathlib import Path

from inference_server.errors import InvalidRequest
from inference_server.messages import ModelMetadata
from inference_server.oip.grpc import Inference
from inference_server.proto import inference_pb2 as pb
from inference_server.tensors import TensorSpec

HERE = Path(__file__).parent
FOUND = HERE / "found"
SECONDS = 1.0
"""Of processor time that a message of a few hundred bytes may take."""
LONGEST = 2000
MODEL = ModelMetadata(
    "m",
    "1",
    (
        TensorSpec("x", "FP32", (-1, 2)),
        TensorSpec("n", "INT64", (-1,)),
        TensorSpec("s", "BYTES", (-1, 1)),
        TensorSpec("b", "BOOL", (2,)),
    ),
    (TensorSpec("y", "FP32", (-1,)), TensorSpec("z", "FP32", (-1,))),
)
# Field tags of a ModelInferRequest, lengths, endless and negative varints, half of a surrogate pair.
PIECES = [
    *(bytes([tag]) for tag in (0, 0x08, 0x0A, 0x2A, 0x3A)),
    *(b"\xff" * 10, b"\x7f\xff\xff\xff", b"\x80" * 9 + b"\1", b"\xed\xa0\x80"),
]


def refusal(message: bytes) -> str:
    """Return in which words it is refused, without what differs from one to the next; "" for a request."""
    try:
        request = Inference(memoryview(message)).decode(MODEL)
    except InvalidRequest as error:
        str(error).encode()  # or nobody could be told
        words = re.sub(r"0x[0-9a-f]+|(?<=expected also ).*", "#", str(error))
        return re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|-?\d+(\.\d+)?(e[+-]?\d+)?", "#", words)[:200]
    assert set(request.inputs) == {spec.name for spec in MODEL.inputs}
    return ""


def seeds() -> list[bytes]:
    """Return right messages: with raw tensors, and with typed ones."""
    raw = [struct.pack("<2f", 0.5, 1), struct.pack("<2q", 3, -4), b"\2\0\0\0\xc3\xa9", b"\1\0"]
    shapes = ([1, 2], [2], [1, 1], [2])
    tensors = [
        pb.ModelInferRequest.InferInputTensor(name=spec.name, datatype=spec.datatype, shape=shape)
        for spec, shape in zip(MODEL.inputs, shapes, strict=True)
    ]
    message = pb.ModelInferRequest(model_name="m", id="1", inputs=tensors, raw_input_contents=raw)
    message.outputs.add(name="y")
    message.parameters["timeout"].int64_param = 1000
    typed = pb.ModelInferRequest(model_name="m", inputs=tensors)
    typed.inputs[0].contents.fp32_contents.extend([0.5, 1])
    typed.inputs[1].contents.int64_contents.extend([3, -4])
    typed.inputs[2].contents.bytes_contents.append("é".encode())
    typed.inputs[3].contents.bool_contents.extend([True, False])
    return [message.SerializeToString(), typed.SerializeToString()]


def mutate(data: bytes, others: list[bytes]) -> bytes:
    """Return it with one to three edits."""
    for _ in range(random.randint(1, 3)):
        at = random.randint(0, len(data))
        how = random.randrange(6)
        if how == 0:
            data = data[:at] + random.choice(PIECES) + data[at:]
        elif how == 1:
            data = data[:at] + random.choice(PIECES) + data[at + random.randint(1, 12) :]
        elif how == 2:
            data = data[:at] + data[at + random.randint(1, 40) :]
        elif how == 3:
            other = random.choice(others)
            start = random.randint(0, len(other))
            data = data[:at] + other[start : start + random.randint(1, 100)] + data[at:]
        elif how == 4:
            data = data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
        else:
            data = data[:at]
    return data[:LONGEST]


def main(seconds: float) -> None:
    """Fuzz for so long."""
    FOUND.mkdir(exist_ok=True)
    trial, pool = HERE / "trial", seeds()
    kept: dict[str, bytes] = {}
    for path in sorted(FOUND.iterdir()):
        if words := refusal(path.read_bytes()):
            kept[words] = path.read_bytes()
    until, tried = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        message = mutate(random.choice(pool + list(kept.values())), pool)
        began = time.process_time()
        try:
            words = refusal(message)
            assert time.process_time() - began < SECONDS, f"too slow: see {trial}"
        except BaseException:
            trial.write_bytes(message)
            raise
        tried += 1
        if words and (words not in kept or len(message) < len(kept[words])):
            kept[words] = message
    for path in FOUND.iterdir():
        path.unlink()
    for words, message in kept.items():
        (FOUND / sha256(words.encode()).hexdigest()[:12]).write_bytes(message)
    print(f"{tried} messages tried, {len(kept)} refusals kept")
    for words in sorted(kept):
        print(f"  {words[:150]}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
