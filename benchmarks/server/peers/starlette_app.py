"""Peer: what one writes by hand for speed in Python: Starlette, uvicorn with httptools and uvloop, orjson.

The Open Inference Protocol's JSON, for one model, without checks, metrics or limits. Computes in the handler, which is
fastest where a model takes microseconds. ``uvicorn starlette_app:app --loop uvloop --http httptools --no-access-log``.
"""

import os

import numpy as np
import onnxruntime as ort
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
outputs = [output.name for output in session.get_outputs()]
TYPES = {"FP32": np.float32, "INT64": np.int64}


async def infer(request: Request) -> Response:
    document = orjson.loads(await request.body())
    inputs = {
        one["name"]: np.array(one["data"], TYPES[one["datatype"]]).reshape(one["shape"])
        for one in document["inputs"]
    }
    results = session.run(outputs, inputs)
    answer = {
        "model_name": "bench",
        "model_version": "1",
        "outputs": [
            {"name": name, "datatype": "FP32", "shape": result.shape, "data": result.ravel()}
            for name, result in zip(outputs, results, strict=True)
        ],
    }
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


async def ready(request: Request) -> Response:
    return Response(b"")


app = Starlette(
    routes=[Route("/v2/health/ready", ready), Route("/v2/models/bench/infer", infer, methods=["POST"])]
)
