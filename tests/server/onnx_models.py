"""Small ONNX models made on the spot, for the tests of the inference server."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 9
OPSET = 17

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


def build(nodes, inputs, outputs, initializers=(), *, opset=OPSET, ir_version=IR_VERSION, domains=()):
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def tensor(name, datatype="FP32", shape=("batch", 4)):
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)


def identity(datatype="FP32", shape=("batch", 4), **options):
    """y = x, of any datatype."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return build([node], [tensor("x", datatype, shape)], [tensor("y", datatype, shape)], **options)


def mlp(seed=0):
    """The 64 → 128 → 10 perceptron that the benchmarks use."""
    random = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(random.standard_normal(shape, dtype=np.float32), name)
        for name, shape in (("w1", (64, 128)), ("w2", (128, 10)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "w2"], ["y"]),
    ]
    return build(nodes, [tensor("x", shape=("batch", 64))], [tensor("y", shape=("batch", 10))], weights)


def bf16_linear(border="BF16"):
    """y = x · w + b, rounded to BF16; FP32 at its border it has the same numbers."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal(shape, np.float32), name)
        for name, shape in (("w", (8, 3)), ("b", (3,)))
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["wide", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["rounded"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["rounded"], ["y"], to=ONNX_TYPES[border]),
    ]
    return build(nodes, [tensor("x", border, ("batch", 8))], [tensor("y", border, ("batch", 3))], weights)


def sum_and_difference():
    """Two inputs of related shape, two outputs."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    shape = ("batch", 2)
    return build(
        nodes,
        [tensor("a", shape=shape), tensor("b", shape=shape)],
        [tensor("sum", shape=shape), tensor("difference", shape=shape)],
    )


def loop(size=256):
    """As many products of 256 × 256 matrices as x says (about a millisecond each); y is always 1 / 256."""
    weight = numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["carried", "w"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, ()),
            helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, (size, size)),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, (size, size)),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(True), "yes"),
        weight,
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Squeeze", ["whole"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "yes", "w"], ["end"], body=body),
        helper.make_node("ReduceMean", ["end"], ["y"], keepdims=0),
    ]
    return build(nodes, [tensor("x", shape=(1,))], [tensor("y", shape=())], constants)


def save(model, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def save_with_external_data(path: Path, location: str, size=64) -> Path:
    """A MatMul whose weights lie in `location`, relative to the model's folder."""
    weight = numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")
    model = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", shape=("batch", size))],
        [tensor("y", shape=("batch", size))],
        [weight],
    )
    raw = weight.raw_data
    for initializer in model.graph.initializer:
        initializer.ClearField("raw_data")
        initializer.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(len(raw)))):
            entry = initializer.external_data.add()
            entry.key, entry.value = key, value
    save(model, path)
    try:
        target = path.parent / location
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(raw)
    except OSError:
        assert location.startswith("/")  # a hostile location need not exist
    return path


def save_matmul_stack(path: Path, layers: int, size: int) -> Path:
    """A row of MatMuls of `size` × `size` whose weights lie in `m.data`."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(
            random.standard_normal((size, size), np.float32) / np.float32(size**0.5), f"w{layer}"
        )
        for layer in range(layers)
    ]
    names = ["x", *(f"h{layer}" for layer in range(1, layers)), "y"]
    nodes = [
        helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]) for layer in range(layers)
    ]
    shape = ("batch", size)
    model = build(nodes, [tensor("x", shape=shape)], [tensor("y", shape=shape)], weights)
    onnx.save_model(model, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    return path
