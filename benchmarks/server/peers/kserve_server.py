"""Peer: KServe's Python server with a custom predictor around ONNX Runtime, on its v2 protocol.

A ``kserve.Model`` with ``load`` and ``predict``, and KServe's own helper for the answer. For speed:
latency log and gRPC port off, ``predict`` a coroutine (no thread), one worker a core.
"""

import os

import onnxruntime as ort
from kserve import InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import get_predict_response


class OnnxModel(Model):
    def __getstate__(self) -> dict:
        """Leave the session out: each worker process loads its own."""
        return {name: value for name, value in vars(self).items() if name != "_session"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self.load()

    def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        (self._output,) = (output.name for output in self._session.get_outputs())
        self.ready = True
        return True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        inputs = {one.name: one.as_numpy() for one in payload.inputs}
        (result,) = self._session.run([self._output], inputs)
        return get_predict_response(payload, result, self.name)


if __name__ == "__main__":
    model = OnnxModel("bench")
    model.load()
    ModelServer().start([model])  # port, workers and logs by its own flags
