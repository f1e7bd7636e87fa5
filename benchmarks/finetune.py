"""A model and its fine-tune, of 91 MB each: MiniLM-L6 in float32, really trained where that can be done, else made up."""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from benchmarks import delta_models

MADE_UP_BYTES = 90_868_344


def versions(folder: Path) -> tuple[Path, Path, str]:
    """Return the old file, the new one, and words that say what they are.

    The real ones are those of the delta benchmark, trained once and cached. Where they are not to be had (training needs
    packages from PyPI), both are random float32, and the update has a thousandth of the weights' standard deviation.
    """
    (pair,) = (pair for pair in delta_models.PAIRS if pair.name == "strong_fp32")
    if pair.new.exists() or delta_models.made():
        rate, steps, part = delta_models.RECIPES["strong"]
        return pair.old, pair.new, f"MiniLM-L6, float32, AdamW at {rate}, {steps} steps, {part} layers"
    generator = np.random.default_rng(7)
    weights = generator.standard_normal(MADE_UP_BYTES // 4, dtype=np.float32) * np.float32(0.05)
    update = generator.standard_normal(weights.size, dtype=np.float32) * np.float32(5e-5)
    return (
        _safetensors(folder / "old.safetensors", weights),
        _safetensors(folder / "new.safetensors", weights + update),
        "made up: random float32, the update a thousandth of the weights (no MiniLM-L6 to be had)",
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
