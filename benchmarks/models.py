"""Synthetic models of a wanted size, for benchmarks that measure bytes rather than answers."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDTH = 512


def matmul_model(path: Path, *, megabytes: float, seed: int = 7, tuned: bool = False) -> Path:
    """Write a chain of 512 x 512 float32 MatMul layers, about ``megabytes`` MB of seeded random weights; return ``path``.

    ``tuned`` adds to each weight a thousandth of what it may be, as a fine-tune does.
    """
    generator = np.random.default_rng(seed)
    update = np.random.default_rng(1000 + seed)
    layers = max(1, round(megabytes * 1e6 / (WIDTH * WIDTH * 4)))
    weights = [
        numpy_helper.from_array(
            (
                generator.standard_normal((WIDTH, WIDTH), dtype=np.float32)
                + update.standard_normal((WIDTH, WIDTH), dtype=np.float32) * np.float32(1e-3 * tuned)
            )
            / np.float32(WIDTH**0.5),
            f"w{n}",
        )
        for n in range(layers)
    ]
    nodes = [
        helper.make_node("MatMul", [f"h{n}" if n else "x", f"w{n}"], [f"h{n + 1}" if n + 1 < layers else "y"])
        for n in range(layers)
    ]
    graph = helper.make_graph(
        nodes,
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path
