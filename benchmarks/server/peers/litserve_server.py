"""Peer: LitServe around ONNX Runtime.

As https://lightning.ai/docs/litserve/speed-up-serving-by-200x recommends: batching (up to 16 rows) and a worker a core;
``fast_queue`` (ZeroMQ) is tried against its default and the faster one stays. The access log is off.
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

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return self._session.run([self._output], {"x": x if x.ndim == 2 else x[None]})[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"y": output.ravel().tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--fast-queue", action="store_true")
    told = parser.parse_args()
    server = ls.LitServer(
        OnnxApi(max_batch_size=told.batch, batch_timeout=0.0),
        accelerator="cpu",
        workers_per_device=told.workers,
        fast_queue=told.fast_queue,
    )
    server.run(
        host="127.0.0.1",
        port=told.port,
        num_api_servers=told.workers,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
