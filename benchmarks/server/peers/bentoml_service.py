"""Peer: BentoML around ONNX Runtime, arrays in JSON.

As https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html recommends for throughput: a batchable API and a
worker a core (``BENCH_WORKERS``); access log, metrics and traces are off.
"""

import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime as ort
from bentoml.validators import DType

BATCHABLE = os.environ.get("BENCH_BATCHABLE") == "1"


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

    @bentoml.api(batchable=BATCHABLE, max_batch_size=64)
    async def infer(self, x: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        return self._session.run(["y"], {"x": x})[0]
