"""Requests by gRPC: the model's metadata, and inferences with raw contents. Needs the extra ``grpc``.

Source: the Open Inference Protocol's grpc_predict_v2.proto.
"""

from collections.abc import Sequence

from google.protobuf.message import DecodeError, Message
from hpack import Encoder

from edgemodel.loadtest import metadata
from edgemodel.loadtest.body import Tensor, pack
from edgemodel.loadtest.grpc_connection import call
from edgemodel.loadtest.metadata import Metadata
from edgemodel.loadtest.proto import inference_pb2 as pb
from edgemodel.loadtest.target import Target

_SERVICE = "/inference.GRPCInferenceService"
_PREFIX_BYTES = 5


class ByGrpc:
    """Makes requests for one model.

    Args:
        target: the server.
        model: its name.
        version: of it; None leaves it to the server.
    """

    asking = f"{_SERVICE}/ModelMetadata"
    """What asks for metadata, for messages."""
    inferring = f"{_SERVICE}/ModelInfer"
    """What asks for an inference."""

    def __init__(self, target: Target, model: str, version: str | None) -> None:
        self._target, self._model, self._version = target, model, version or ""

    def metadata(self) -> bytes:
        """Return the request for metadata."""
        return self._call(self.asking, pb.ModelMetadataRequest(name=self._model, version=self._version))

    def read(self, body: bytes) -> Metadata:
        """Read the answer to it.

        Raises:
            Stalled: ``InvalidSpec``; it is none.
        """
        try:
            found = pb.ModelMetadataResponse.FromString(body[_PREFIX_BYTES:])
            inputs = [
                {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in found.inputs
            ]
            return metadata.read({"name": found.name, "versions": list(found.versions), "inputs": inputs})
        except (DecodeError, ValueError) as error:
            raise metadata.unreadable(error, body) from None

    def inference(self, tensors: Sequence[Tensor]) -> bytes:
        """Return a request for an inference.

        Raises:
            Stalled: ``InvalidSpec``; a value does not fit its datatype.
        """
        request = pb.ModelInferRequest(model_name=self._model, model_version=self._version)
        for one in tensors:
            request.inputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
            request.raw_input_contents.append(pack(one))
        return self._call(self.inferring, request)

    def _call(self, path: str, message: Message) -> bytes:
        fields = {
            ":method": "POST",
            ":scheme": "https" if self._target.tls else "http",
            ":path": path,
            ":authority": self._target.authority,
            "te": "trailers",
            "content-type": "application/grpc",
        }
        if self._target.token:
            fields["authorization"] = f"Bearer {self._target.token}"
        # What is never indexed leaves no trace in a table.
        block = Encoder().encode([(name, value, True) for name, value in fields.items()])
        return call(block, message.SerializeToString())
