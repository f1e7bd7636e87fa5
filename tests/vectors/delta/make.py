"""Makes the vectors of one format version, once: ``PYTHONPATH=. python tests/vectors/delta/make.py FOLDER``.

What is committed is never made again: a released patch must be read for ever, also when the encoder makes other ones.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np

from edgemodel.artifact.delta import codec, quant
from edgemodel.artifact.delta.numbers import DTYPES, NUMBER_OF
from edgemodel.artifact.delta.tensors import tensors_of
from tests.unit.artifact.delta.models import safetensors, trained, weights

COUNT = 5000


def main(folder: Path) -> None:
    old, new, frozen = [], [], []
    for n, dtype in enumerate(NUMBER_OF):
        values = weights(dtype, COUNT, seed=n)
        after = trained(values, dtype, seed=n)
        still = after.copy()
        still[1000:4000] = values[1000:4000]
        old.append((f"w{n}", dtype, values))
        new.append((f"w{n}", dtype, after))
        frozen.append((f"w{n}", dtype, still))
    base = safetensors(folder / "base.safetensors", old, "old")
    made = {}

    def add(name: str, target: Path, which: str, steps=()) -> None:
        before = None if which == "planes" else base
        codec.encode(
            which, before, target, folder / f"{name}.patch",
            old_tensors=tensors_of(base, beside={}), new_tensors=tensors_of(target, beside={}), steps=steps,
        )  # fmt: skip
        made[name] = {
            "base": base.name if before else None,
            "size": target.stat().st_size,
            "sha256": sha256(target.read_bytes()).hexdigest(),
        }
        target.unlink()

    for name in codec.NAMES:
        add(name, safetensors(folder / "new.safetensors", new[::-1], "new"), name)
    add("ulp-partly", safetensors(folder / "new.safetensors", frozen, "new"), "ulp")
    add("ulp-same", safetensors(folder / "new.safetensors", old, "other"), "ulp")
    rng = np.random.default_rng(5)
    values = old[0][2]
    steps = np.full(-(-COUNT // quant.GROUP), 1e-5, np.float32)
    moves = rng.integers(-3, 4, COUNT).astype(np.int8)
    moved = np.frombuffer(quant.restore(values.tobytes(), steps, moves, DTYPES[1]), "<f4")
    target = safetensors(folder / "new.safetensors", [("w0", "F32", moved), *old[1:]], "old")
    first = tensors_of(target, beside={})[0]
    add("ulp-stepped", target, "ulp", [quant.TensorSteps(first.offset, steps)])
    (folder / "expected.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
