"""A model and its fine-tune, of 91 MB each: MiniLM-L6 in float32, really trained where that can be done, else made up."""

import json
import subprocess
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from testbed.paths import CACHE, ROOT

RATE, STEPS = "2e-5", "200"
MODEL = CACHE / "models" / "minilm-l6"
TRAINED = CACHE / "models" / f"minilm-l6-adamw-{RATE}-{STEPS}" / "model.safetensors"
TRAINER = CACHE / "finetune-venv" / "bin" / "python"
MADE_UP_BYTES = 90_868_344


def versions(folder: Path) -> tuple[Path, Path, str]:
    """Return the old file, the new one, and words that say what they are.

    The real ones need MiniLM-L6 in ``CACHE/models/minilm-l6`` and a fine-tune beside it; that is trained once when
    ``CACHE/finetune-venv`` is there (see ``delta_finetune``). Otherwise both are random float32, whose update has a
    thousandth of the weights' standard deviation.
    """
    old = MODEL / "model.safetensors"
    if old.exists() and not TRAINED.exists() and TRAINER.exists():
        TRAINED.parent.mkdir(parents=True, exist_ok=True)
        half = TRAINED.with_suffix(".half")
        script = ROOT / "benchmarks" / "delta_finetune.py"
        subprocess.run([TRAINER, script, MODEL, half, RATE, STEPS, "all"], check=True, timeout=3600)
        half.rename(TRAINED)
    if old.exists() and TRAINED.exists():
        return old, TRAINED, f"MiniLM-L6, float32, AdamW at {RATE}, {STEPS} steps, all layers"
    generator = np.random.default_rng(7)
    weights = generator.standard_normal(MADE_UP_BYTES // 4, dtype=np.float32) * np.float32(0.05)
    update = generator.standard_normal(weights.size, dtype=np.float32) * np.float32(5e-5)
    return (
        _safetensors(folder / "old.safetensors", weights),
        _safetensors(folder / "new.safetensors", weights + update),
        "made up: random float32, the update a thousandth of the weights (no MiniLM-L6 in the cache)",
    )


def _safetensors(path: Path, weights: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> Path:
    tensor = {"dtype": "F32", "shape": [weights.size], "data_offsets": [0, weights.nbytes]}
    header = json.dumps({"weights": tensor})
    header += " " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + weights.tobytes())
    return path


def entry_file(folder: Path) -> Path:
    """Write the small graph that an artifact needs beside weights, the same for every version; return its path."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "entry", [value], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def linked(path: Path, folder: Path) -> Path:
    """Return a file of the name that both versions have, with a file's content: deltas match files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "weights.safetensors"
    place.symlink_to(path)
    return place
