"""A model so small that hundreds of requests a second leave two cores free, whose versions answer visibly differently.

Input ``x``, float32 [batch, 8], whose first number is the number of a case, 0 to 39; output ``y``, float32 [batch, 8]. Some
products of matrices make it as busy as it is told to be. What it must answer is computed by ONNX Runtime in this process
from a plain version of it.
"""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from testbed.load import Case

CASES = 40
WIDTH = 8
_SIDE = 64
"""Of the matrices whose product is one round of work: 0.5 MFLOP, some 10 µs."""


def model(
    version: str,
    *,
    rounds: int = 0,
    nodes: Iterable[onnx.NodeProto] = (),
    constants: Iterable[onnx.TensorProto] = (),
    plus: str | None = None,
) -> onnx.ModelProto:
    """Return a version of it.

    Args:
        version: any word; weights, and with them answers, follow from it.
        rounds: products of matrices that an inference computes and throws away.
        nodes: further nodes of the graph, which may read ``x`` and ``case`` (int64, no dimensions).
        constants: their initializers.
        plus: a value that they compute, added to ``y``.
    """
    random = np.random.default_rng(zlib.crc32(version.encode()))
    weights = random.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    weights[0] /= CASES
    terms = ["answer", *(["idle"] if rounds else []), *([plus] if plus else [])]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weights"], ["product"]),
            helper.make_node("Tanh", ["product"], ["answer"]),
            helper.make_node("Gather", ["x", "first"], ["row"], axis=0),
            helper.make_node("Gather", ["row", "first"], ["number"], axis=0),
            helper.make_node("Cast", ["number"], ["case"], to=TensorProto.INT64),
            *(_work() if rounds else []),
            *nodes,
            helper.make_node("Sum", terms, ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array(0, np.int64), "first"),
            *(_work_constants(rounds) if rounds else []),
            *constants,
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _work() -> list[onnx.NodeProto]:
    """Return nodes whose result, ``idle``, is 0 after so many products of matrices."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["carried", "unit"], ["next"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, ()),
            helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, (_SIDE, _SIDE)),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, (_SIDE, _SIDE)),
        ],
    )
    return [
        helper.make_node("Loop", ["rounds", "yes", "unit"], ["worked"], body=body),
        helper.make_node("ReduceMin", ["worked"], ["idle"], keepdims=0),  # an identity matrix has zeros
    ]


def _work_constants(rounds: int) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(np.array(rounds, np.int64), "rounds"),
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.eye(_SIDE, dtype=np.float32), "unit"),
    ]


def save(built: onnx.ModelProto, path: Path) -> Path:
    """Write a model to a file; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(built.SerializeToString())
    return path


def inputs(case: int) -> npt.NDArray[np.float32]:
    """Return the input of a case: float32, shape [1, 8]."""
    rest = np.cos(np.arange(1, WIDTH, dtype=np.float32) * (case + 1))
    return np.concatenate([[np.float32(case)], rest]).astype(np.float32)[None, :]


def answer(built: onnx.ModelProto, case: int) -> npt.NDArray[np.float32]:
    """Return what ONNX Runtime says in this process: float32, shape [1, 8]."""
    return answers(built, [case])[0]


def answers(built: onnx.ModelProto, cases: Iterable[int]) -> list[npt.NDArray[np.float32]]:
    """Return what ONNX Runtime says in this process to each case: float32, shape [1, 8]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(built.SerializeToString(), options, ["CPUExecutionProvider"])
    return [np.asarray(session.run(None, {"x": inputs(case)})[0], dtype=np.float32) for case in cases]


def request(case: int) -> str:
    """Return the body of an Open Inference Protocol request for a case."""
    x = inputs(case)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    return json.dumps({"inputs": [tensor]})


def cases(*versions: str) -> list[Case]:
    """Return all cases with what each of these versions must answer."""
    wanted = {version: answers(model(version), range(CASES)) for version in versions}
    return [
        Case(
            request(case),
            {version: found[case].ravel().astype(float).tolist() for version, found in wanted.items()},
        )
        for case in range(CASES)
    ]


def write_golden(folder: Path, version: str, cases: Iterable[int] = (0, 7, 21)) -> Path:
    """Write golden samples of a version, as ``edgemodel publish --golden`` takes them; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    built = model(version)
    chosen = list(cases)
    for case, y in zip(chosen, answers(built, chosen), strict=True):
        np.savez(folder / f"case-{case}.inputs.npz", x=inputs(case))
        np.savez(folder / f"case-{case}.outputs.npz", y=y)
    tolerances = {"default": {"absolute": 1e-5, "relative": 1e-4}, "outputs": {}}
    (folder / "tolerances.json").write_text(json.dumps(tolerances))
    return folder
