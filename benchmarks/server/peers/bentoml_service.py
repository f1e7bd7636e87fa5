"""Peer: BentoML around ONNX Runtime, arrays in JSON.

A worker a core (``BENCH_WORKERS``), an API that is a coroutine (no thread), access log and metrics off. Without its adaptive
batching, with which a model of microseconds got half as many requests here.
"""

import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime as ort
from bentoml.validators import DType


@bentoml.service(
    workers=int(os.environ.get("BENCH_WORKERS", "1")),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    traffic={"timeout": 30},
)
class Onnx:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api
    async def infer(self, x: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        return self._session.run(["y"], {"x": x})[0]
