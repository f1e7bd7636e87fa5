"""Peer: LitServe around ONNX Runtime.

A worker a core, the queue by ZeroMQ (``fast_queue``), the access log off. Without its batching: with a model of
microseconds, batches of up to 16 took more processor time for each request here than none.
"""

import argparse
import os

import litserve as ls
import numpy as np
import onnxruntime as ort


class OnnxApi(ls.LitAPI):
    def setup(self, device) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        (self._output,) = (output.name for output in self._session.get_outputs())

    def decode_request(self, request):
        return np.asarray(request["x"], np.float32)

    def predict(self, x):
        return self._session.run([self._output], {"x": x[None]})[0]

    def encode_response(self, output):
        return {"y": output.ravel().tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    told = parser.parse_args()
    server = ls.LitServer(OnnxApi(), accelerator="cpu", workers_per_device=told.workers, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=told.port,
        num_api_servers=told.workers,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
