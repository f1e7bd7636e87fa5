"""The pairs of the delta benchmark as models that can be served: an ONNX graph beside the weights, and what to ask it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from benchmarks import delta_models
from benchmarks.delta_models import Pair
from testbed import magika_model, minilm_model

WEIGHTS = "weights.safetensors"
GOALS = {
    "strong_fp32": 0.4,
    "strong_fp16": 0.24,
    "strong_bf16": 0.135,
    "strong_int8": 0.075,
    "last_layer_fp32": 0.05,
    "metadata_only_fp32": 0.001,
}
"""Bytes over the link by those of a full pull: what the delta benchmark wants of the patches alone."""
NAMES = (*GOALS, "retrained_magika", "synthetic_512mb_fp32")
WIDTH = 1024
"""Of the synthetic model's layers."""


@dataclass(frozen=True)
class Version:
    """Files to publish."""

    entry: Path
    beside: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Kind:
    """What a model takes and gives."""

    requests: Callable[[], list[dict[str, Any]]]
    answers: Callable[[Path], list[npt.NDArray[np.float32]]]
    graph: Callable[[Path, Path, str], Path] | None
    """Writes the graph around a safetensors file; None: the file is a model."""


@dataclass(frozen=True)
class Case:
    """One pair of versions."""

    name: str
    pair: Pair
    kind: Kind

    @property
    def goal(self) -> float | None:
        """The largest share of a full pull's bytes, if there is a goal."""
        return GOALS.get(self.name)

    @property
    def moves(self) -> bool:
        """Whether the answers change."""
        return not self.name.startswith("metadata_only")

    def versions(self, folder: Path) -> tuple[Version, Version]:
        """Lay out the files of both versions; weights are links, nothing is copied."""
        return self._version(folder / "old", self.pair.old), self._version(folder / "new", self.pair.new)

    def _version(self, folder: Path, file: Path) -> Version:
        folder.mkdir(parents=True)
        entry = folder / "model.onnx"
        if self.kind.graph is None:
            entry.hardlink_to(file)
            return Version(entry)
        weights = folder / WEIGHTS
        weights.hardlink_to(file)
        return Version(self.kind.graph(entry, weights, WEIGHTS), (weights,))

    def requests(self) -> list[dict[str, Any]]:
        """Return bodies of Open Inference Protocol requests."""
        return self.kind.requests()

    def answers(self, version: Version) -> list[npt.NDArray[np.float32]]:
        """Return what ONNX Runtime says to the requests in this process."""
        return self.kind.answers(version.entry)


def cases(names: Sequence[str] = NAMES) -> list[Case]:
    """Return cases by name; their files are there."""
    if not delta_models.made():
        raise RuntimeError("the models could not be made; what went wrong is above")
    pairs = {pair.name: pair for pair in delta_models.PAIRS}
    return [Case(name, pairs[name], _kind(name)) for name in names]


def _kind(name: str) -> Kind:
    if "magika" in name:
        contents = magika_model.SAMPLES.values()
        return Kind(
            lambda: [magika_model.request(content) for content in contents],
            lambda model: [magika_model.answer(model, content).ravel() for content in contents],
            None,
        )
    if "synthetic" in name:
        return Kind(lambda: [_body(x) for x in _inputs()], _synthetic_answers, _synthetic_graph)
    sentences = minilm_model.SENTENCES
    return Kind(
        lambda: [minilm_model.request(sentence) for sentence in sentences],
        minilm_model.answers,
        minilm_model.beside,
    )


def _inputs() -> list[npt.NDArray[np.float32]]:
    random = np.random.default_rng(11)
    return [random.standard_normal((1, WIDTH), "f4") for _ in range(4)]


def _body(x: npt.NDArray[np.float32]) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}]}


def _synthetic_graph(target: Path, weights: Path, location: str) -> Path:
    """Write a chain of the file's matrices, each followed by a normalisation that keeps numbers in range."""
    tensors = minilm_model.stored(weights, location)
    ones = numpy_helper.from_array(np.ones(WIDTH, "f4"), "ones")
    nodes, last = [], "x"
    for number, tensor in enumerate(tensors):
        end = "y" if number + 1 == len(tensors) else f"h{number}"
        nodes.append(helper.make_node("MatMul", [last, tensor.name], [f"m{number}"]))
        nodes.append(helper.make_node("LayerNormalization", [f"m{number}", "ones"], [end], axis=-1))
        last = end
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", border[:1], border[1:], [*tensors, ones])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    target.write_bytes(model.SerializeToString())
    return target


def _synthetic_answers(model: Path) -> list[npt.NDArray[np.float32]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return [np.asarray(session.run(None, {"x": x})[0]).ravel() for x in _inputs()]
