"""Fuzzes the parsers of inference requests and keeps the shortest request for every refusal.

Usage: ``PYTHONPATH=. python tests/corpus/requests/grow.py [SECONDS]``. Starts from right requests and from what was found
before; a mutation that is refused in words not seen yet (names and numbers aside), or shorter than the one kept for them,
is kept in ``<parser>/``. Anything but a refusal, or a parser that takes a second, ends the run with the request in
``trial``.
"""

import json
import random
import struct
import sys
import time
from hashlib import sha256
from pathlib import Path

from inference_server.proto import inference_pb2 as pb
from tests.corpus.requests.parsers import PARSERS, refusal

HERE = Path(__file__).parent
SECONDS = 1.0
"""Of processor time that a request of a few hundred bytes may take."""
LONGEST = 2000
PIECES = {
    "json": [
        *b'" { } [ ] , : -1 0 1.5 1e999 9223372036854775808 null true NaN \\ud800 \xff'.split(),
        *b'"x" "name" "shape" "data" "datatype" "BYTES" "outputs" "parameters" "timeout" "id"'.split(),
        *b'"binary_data_size" "binary_data" "binary_data_output"'.split(),
    ],
    # Field tags of a ModelInferRequest, lengths, endless and negative varints, half of a surrogate pair.
    "grpc": [
        *(bytes([tag]) for tag in (0, 0x08, 0x0A, 0x2A, 0x3A)),
        *(b"\xff" * 10, b"\x7f\xff\xff\xff", b"\x80" * 9 + b"\1", b"\xed\xa0\x80"),
    ],
}


def seeds(parser: str) -> list[bytes]:
    """Return right requests."""
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1]},
        {"name": "n", "datatype": "INT64", "shape": [2], "data": [3, -4]},
        {"name": "s", "datatype": "BYTES", "shape": [1, 1], "data": ["é"]},
        {"name": "b", "datatype": "BOOL", "shape": [2], "data": [True, False]},
    ]
    raw = [struct.pack("<2f", 0.5, 1), struct.pack("<2q", 3, -4), b"\2\0\0\0\xc3\xa9", b"\1\0"]
    if parser == "json":
        asked = {"id": "1", "parameters": {"timeout": 1000, "priority": 1}, "outputs": [{"name": "y"}]}
        return [json.dumps({"inputs": inputs, **more}).encode() for more in ({}, asked)]
    if parser == "binary":
        stated = [
            {name: value for name, value in one.items() if name != "data"}
            | {"parameters": {"binary_data_size": len(part)}}
            for one, part in zip(inputs, raw, strict=True)
        ]
        found = []
        for entries, parts in ((stated, raw), ([stated[0], *inputs[1:]], raw[:1])):
            outputs = [{"name": "y", "parameters": {"binary_data": True}}]
            head = json.dumps({"inputs": entries, "outputs": outputs}).encode()
            found.append(b"%d\n%s" % (len(head), b"".join([head, *parts])))
        return found
    tensors = [
        pb.ModelInferRequest.InferInputTensor(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        for one in inputs
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


def mutate(data: bytes, others: list[bytes], pieces: list[bytes]) -> bytes:
    """Return it with one to three edits."""
    for _ in range(random.randint(1, 3)):
        at = random.randint(0, len(data))
        how = random.randrange(6)
        if how == 0:
            data = data[:at] + random.choice(pieces) + data[at:]
        elif how == 1:
            data = data[:at] + random.choice(pieces) + data[at + random.randint(1, 12) :]
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


def grow(parser: str, seconds: float) -> tuple[int, dict[str, bytes]]:
    """Return how many requests were tried, and the shortest for each refusal."""
    folder, trial = HERE / parser, HERE / "trial"
    folder.mkdir(exist_ok=True)
    pool, pieces = seeds(parser), PIECES["grpc" if parser == "grpc" else "json"]
    kept: dict[str, bytes] = {}
    for request in pool:
        assert refusal(parser, request) == "", refusal(parser, request)
    for path in sorted(folder.iterdir()):
        if words := refusal(parser, path.read_bytes()):
            kept[words] = path.read_bytes()
    until, tried = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        request = mutate(random.choice(pool + list(kept.values())), pool, pieces)
        began = time.process_time()
        try:
            words = refusal(parser, request)
        except BaseException:
            trial.write_bytes(request)
            raise
        if time.process_time() - began > SECONDS:
            trial.write_bytes(request)
            raise TimeoutError(f"{parser}: too slow: see {trial}")
        tried += 1
        if words and (words not in kept or len(request) < len(kept[words])):
            kept[words] = request
    for path in folder.iterdir():
        path.unlink()
    for words, request in kept.items():
        (folder / sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:12]).write_bytes(request)
    return tried, kept


def main(seconds: float) -> None:
    """Fuzz each parser for so long."""
    for parser in PARSERS:
        tried, kept = grow(parser, seconds)
        print(f"{parser}: {tried} requests tried, {len(kept)} refusals kept")
        for words in sorted(kept):
            print(f"  {words[:150]}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
