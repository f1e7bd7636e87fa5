"""Requests by HTTP: the model's metadata, and inferences as JSON or in binary."""

from collections.abc import Sequence

from edgemodel.loadtest import metadata
from edgemodel.loadtest.body import Tensor, as_binary, as_json
from edgemodel.loadtest.metadata import Metadata
from edgemodel.loadtest.target import Target, model_path


class ByHttp:
    """Makes requests for one model.

    Args:
        target: the server.
        model: its name.
        version: of it; None leaves it to the server.
        binary: send and ask for binary tensor data.
    """

    def __init__(self, target: Target, model: str, version: str | None, *, binary: bool) -> None:
        self._target, self._path = target, model_path(model, version)
        self._encode = as_binary if binary else as_json
        self.asking = f"GET {target.path}{self._path}"
        """What asks for metadata, for messages."""
        self.inferring = f"POST {target.path}{self._path}/infer"
        """What asks for an inference."""

    def metadata(self) -> bytes:
        """Return the request for metadata."""
        return self._target.request("GET", self._path)

    def read(self, body: bytes) -> Metadata:
        """Read the answer to it.

        Raises:
            Stalled: ``InvalidSpec``; it is none.
        """
        return metadata.parse(body)

    def inference(self, tensors: Sequence[Tensor]) -> bytes:
        """Return a request for an inference.

        Raises:
            Stalled: ``InvalidSpec``; a value does not fit its datatype, or the datatype JSON.
        """
        body = self._encode(tensors)
        return self._target.request("POST", f"{self._path}/infer", body.content, body.headers)
