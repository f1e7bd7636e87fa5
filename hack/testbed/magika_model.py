"""Two real releases of one real model: Magika's content-type classifier, as its wheels carry it.

``standard_v3_2`` (in magika 0.6.1) and ``standard_v3_3`` (in magika 1.0.3) take the first and last 1,024 bytes of a file
as int32 tokens, shape [batch, 2048], and return one score per content type, shape [batch, 214].
`golden` writes golden samples of a release, `mistaken` a model that loads and answers like one, and answers wrongly.
Features are extracted by Magika's own code, and the expected answer is computed by ONNX Runtime in this process.
"""

import functools
import importlib.resources
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.load import Case
from testbed.paths import CACHE
from testbed.shell import run

OLD_WHEEL = "magika==0.6.1"
SAMPLES: dict[str, bytes] = {
    "python": b"import os\n\n\ndef main() -> None:\n    for name in sorted(os.listdir('.')):\n        print(name)\n"
    * 4,
    "html": b"<!DOCTYPE html><html><head><title>Edge</title></head><body><p>Hello</p></body></html>\n" * 4,
    "json": b'{"model": "detector", "version": "1.4.0", "scores": [0.1, 0.2, 0.7]}\n' * 4,
    "shell": b'#!/bin/sh\nset -eu\nfor f in *.log; do\n  gzip -9 "$f"\ndone\n' * 4,
}
"""Content by the type that Magika should see in it."""
_TYPES = 214


def release(version: str) -> Path:
    """Return the path of a real model: ``v1`` is standard_v3_2, ``v2`` is standard_v3_3."""
    if version == "v2":
        return Path(str(importlib.resources.files("magika") / "models" / "standard_v3_3" / "model.onnx"))
    target = CACHE / "models" / "magika-standard_v3_2" / "model.onnx"
    if not target.exists():
        wheels = CACHE / "wheels"
        run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            wheels,
            OLD_WHEEL,
        )
        (wheel,) = wheels.glob("magika-0.6.1-*.whl")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        with zipfile.ZipFile(wheel) as archive:
            partial.write_bytes(archive.read("magika/models/standard_v3_2/model.onnx"))
        partial.rename(target)
    return target


@functools.cache
def _magika() -> Any:
    from magika import Magika

    return Magika()


def features(content: bytes) -> npt.NDArray[np.int32]:
    """Return Magika's own features of ``content``: int32, shape [1, 2048]."""
    from magika.types.seekable import Seekable

    extract = _magika()._extract_features_from_seekable  # noqa: SLF001 (Magika offers no public name)
    found = extract(Seekable(io.BytesIO(content)), 1024, 0, 1024, 256, 4096, False)
    return np.asarray([[*found.beg, *found.end]], dtype=np.int32)


@functools.cache
def labels() -> list[str]:
    """Return the content type of each output score."""
    return [str(label) for label in _magika()._model_config.target_labels_space]  # noqa: SLF001 (likewise)


@functools.cache
def _session(model: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def expected(version: str, content: bytes) -> npt.NDArray[np.float32]:
    """Return what ONNX Runtime says in this process of a release: float32, shape [1, 214]."""
    return answer(release(version), content)


def answer(model: Path, content: bytes) -> npt.NDArray[np.float32]:
    """Return what ONNX Runtime says in this process of a model file: float32, shape [1, 214]."""
    (scores,) = _session(model).run(None, {"bytes": features(content)})
    return np.asarray(scores, dtype=np.float32)


def request(content: bytes) -> dict[str, Any]:
    """Return the body of an Open Inference Protocol request for ``content``."""
    tokens = features(content)
    return {
        "inputs": [
            {
                "name": "bytes",
                "datatype": "INT32",
                "shape": list(tokens.shape),
                "data": tokens.ravel().tolist(),
            }
        ]
    }


def cases(*versions: str) -> list[Case]:
    """Return a request for each sample with what each of these releases answers."""
    return file_cases({version: release(version) for version in versions})


def file_cases(models: Mapping[str, Path]) -> list[Case]:
    """Return a request for each sample with what each of these model files, by version, answers."""
    return [
        Case(
            json.dumps(request(content)),
            {
                version: answer(path, content).ravel().astype(float).tolist()
                for version, path in models.items()
            },
        )
        for content in SAMPLES.values()
    ]


def write_golden(folder: Path, model: Path) -> Path:
    """Write golden samples of a model file, as ``edgemodel publish --golden`` takes them; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (output,) = _session(model).get_outputs()
    for name, content in SAMPLES.items():
        np.savez(folder / f"{name}.inputs.npz", bytes=features(content))
        answers: dict[str, Any] = {output.name: answer(model, content)}
        np.savez(folder / f"{name}.outputs.npz", **answers)
    (folder / "tolerances.json").write_text('{"default": {"absolute": 1e-4, "relative": 1e-3}}')
    return folder


def scores(response: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return the scores in an Open Inference Protocol response."""
    (output,) = response["outputs"]
    return np.asarray(output["data"], dtype=np.float32).reshape(output["shape"])


def nudged(target: Path, *, of: Path | None = None, scale: float = 1e-3, seed: int = 7) -> Path:
    """Write a copy of a model (v1) whose every weight moved a little, as a short fine-tuning moves it."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(of or release("v1"))
    random = np.random.default_rng(seed)
    for weights in model.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype == np.float32 and values.size > 1:
            moved = values * (1 + scale * random.standard_normal(values.shape)).astype(np.float32)
            weights.CopyFrom(numpy_helper.from_array(moved, weights.name))
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target)
    return target


def mistaken(target: Path, *, of: Path | None = None) -> Path:
    """Write a copy of a model (v1) that loads, is as fast, gives scores that add up to 1, and answers wrongly.

    Each type gets the score of the type after it: what a model looks like that was exported with the labels of another.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(of or release("v1"))
    moved = 0
    for weights in model.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype == np.float32 and values.shape[1:] == (_TYPES,):
            weights.CopyFrom(numpy_helper.from_array(np.roll(values, -1, axis=1), weights.name))
            moved += 1
    if not moved:
        raise ValueError(f"{of or 'v1'}: has no weights for each of {_TYPES} types")
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target)
    return target


def golden(folder: Path, *, of: Path | None = None, outputs: bool = True) -> Path:
    """Write golden samples, one for each of ``SAMPLES``, for ``edgemodel publish --golden``.

    Args:
        folder: made when missing.
        of: the model whose answers are right; v1.
        outputs: write these, too; otherwise whoever publishes computes them from what is published.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind, content in SAMPLES.items():
        np.savez(folder / f"{kind}.inputs.npz", bytes=features(content))
        if outputs:
            np.savez(folder / f"{kind}.outputs.npz", target_label=answer(of or release("v1"), content))
    (folder / "tolerances.json").write_text('{"default": {"absolute": 0.001, "relative": 0.01}}\n')
    return folder
