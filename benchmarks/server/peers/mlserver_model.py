"""Peer: MLServer with a custom runtime around ONNX Runtime, decoded and encoded by its NumPy codec.

As https://docs.seldon.ai/mlserver/user-guide/custom shows it. For speed: ``debug`` off (no access log), and
no worker processes (``parallel_workers`` 0, which turns its parallel inference off), as a hop to another process costs more
than a model of microseconds; httptools, which uvicorn takes when it is there. Adaptive batching is off, as by default.
"""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {one.name: self.decode(one, default_codec=NumpyCodec) for one in payload.inputs}
        results = self._session.run(self._outputs, inputs)
        return InferenceResponse(
            model_name=self.name,
            model_version="1",
            outputs=[
                NumpyCodec.encode_output(name, result)
                for name, result in zip(self._outputs, results, strict=True)
            ],
        )
