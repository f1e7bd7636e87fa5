"""Fuzzes the delta decoder and keeps the smallest patch for every refusal.

Usage: ``PYTHONPATH=. python tests/corpus/delta/grow.py [SECONDS]``. Starts from ``seeds`` (made once, on the first run)
and from what was ``found`` before; a mutation that is refused in words not seen yet (numbers aside), or shorter than the
one kept for them, is kept. Anything but a refusal ends the run with the patch.
"""

import random
import re
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
from backports import zstd

from edgemodel.artifact.delta import codec, quant
from edgemodel.artifact.delta.numbers import DTYPES
from edgemodel.artifact.delta.tensors import tensors_of
from edgemodel.errors import Refused
from tests.unit.artifact.delta.models import safetensors, trained, weights

HERE = Path(__file__).parent
MAGIC = b"\x28\xb5\x2f\xfd"


def make_seeds() -> None:
    tensors = [
        ("w", "F32", weights(count=4500)),
        ("h", "F16", weights("F16", 700)),
        ("q", "I8", weights("I8", 1000)),
    ]
    base = safetensors(HERE / "base", tensors)
    (HERE / "seeds").mkdir()
    moved = [(name, dtype, trained(values, dtype)) for name, dtype, values in tensors]
    partly = [
        (name, dtype, np.concatenate([v[:200], old[2][200:]]))
        for (name, dtype, v), old in zip(moved, tensors, strict=True)
    ]
    steps = np.full(-(-4500 // quant.GROUP), 1e-5, np.float32)
    stepped = np.frombuffer(
        quant.restore(tensors[0][2].tobytes(), steps, (np.arange(4500) % 5).astype(np.int8), DTYPES[1]), "<f4"
    )
    new = HERE / "new.safetensors"
    spans = tensors_of(base, beside={"base.safetensors": base})
    (HERE / "size").write_text(str(base.stat().st_size))
    for name, which, content in (
        ("ulp", "ulp", moved), ("partly", "ulp", partly), ("stepped", "ulp", [("w", "F32", stepped), *tensors[1:]]),
        ("patch-from", "patch-from", partly), ("hdiff", "hdiff", partly), ("planes", "planes", tensors),
    ):  # fmt: skip
        safetensors(new, content)
        found = [quant.TensorSteps(spans[0].offset, steps)] if name == "stepped" else []
        codec.encode(
            which, None if which == "planes" else base, new, HERE / "seeds" / name,
            old_tensors=spans, new_tensors=tensors_of(new, beside={}), steps=found,
        )  # fmt: skip
    new.unlink()


def mutate(data: bytes, others: list[bytes]) -> bytes:
    """One to three edits; half of them inside a zstd frame's content, which is compressed again."""
    for _ in range(random.randint(1, 3)):
        frames = [m.start() for m in re.finditer(re.escape(MAGIC), data)]
        if frames and random.random() < 0.4:
            at = random.choice(frames)
            decoder = zstd.ZstdDecompressor()
            try:
                content = decoder.decompress(data[at:])
            except zstd.ZstdError:
                continue
            if decoder.eof:
                end = len(data) - len(decoder.unused_data)
                again = zstd.compress(edit(content, others))
                data = data[: max(0, at - 4)] + len(again).to_bytes(4, "little") + again + data[end:]
                continue
        data = edit(data, others)
    return data


def edit(data: bytes, others: list[bytes]) -> bytes:
    at = random.randint(0, min(len(data), random.choice([30, 200, 10**9])))
    how = random.randrange(6)
    if how == 0:
        return (
            data[:at]
            + bytes([random.choice([0, 1, 2, 3, 127, 128, 255, random.randrange(256)])])
            + data[at + 1 :]
        )
    if how == 1:
        return data[:at]
    if how == 2:
        number = random.choice([0, 1, 2**31, 2**32 - 1, random.getrandbits(16)])
        return data[:at] + number.to_bytes(4, "little") + data[at + 4 :]
    if how == 3:
        return data[:at] + data[at + random.randint(1, 40) :]
    if how == 4:
        other = random.choice(others)
        start = random.randint(0, len(other))
        return data[:at] + other[start : start + random.randint(1, 100)] + data[at:]
    return data[:at] + random.randbytes(random.randint(1, 8)) + data[at:]


def refusal(patch: bytes, size: int, path: Path) -> str:
    path.write_bytes(patch)
    written = []
    try:
        codec.apply(HERE / "base", path, lambda piece: written.append(len(piece)), size=size)
    except Refused as error:
        return re.sub(r"b['\"].*['\"]|\[.*?\]|\d+|header \w+: expected.*", "#", error.message)
    assert sum(written) == size
    return ""


def main(seconds: float) -> None:
    if not (HERE / "seeds").exists():
        make_seeds()
    (HERE / "found").mkdir(exist_ok=True)
    size = int((HERE / "size").read_text())
    scratch = HERE / "trial"
    kept: dict[str, bytes] = {}
    pool = [path.read_bytes() for path in sorted((HERE / "seeds").iterdir())]
    for path in sorted((HERE / "found").iterdir()):
        if words := refusal(path.read_bytes(), size, scratch):
            kept[words] = path.read_bytes()
    until, tried = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        patch = mutate(random.choice(pool + list(kept.values())), pool)
        began = time.process_time()
        words = refusal(patch, size, scratch)  # what is raised else shows its patch in ``trial``
        assert time.process_time() - began < 5, "too slow: see trial"
        tried += 1
        if words and (words not in kept or len(patch) < len(kept[words])):
            kept[words] = patch
    for path in (HERE / "found").iterdir():
        path.unlink()
    for words, patch in kept.items():
        (HERE / "found" / sha256(words.encode()).hexdigest()[:12]).write_bytes(patch)
    scratch.unlink()
    print(f"{tried} patches tried, {len(kept)} refusals kept")
    for words in sorted(kept):
        print(f"  {words[:150]}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
