"""What the data plane takes and gives, whatever the protocol. Plain values, no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass

from inference_server.tensors import Array, TensorSpec


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """Decoded inputs of one request.

    Attributes:
        inputs: Arrays by input name; every input of the model is there.
        outputs: Names of the outputs to compute, in the order to return them.
        id: The client's own id, returned unchanged; "" when it gave none.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    id: str = ""


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """Outputs of one request, in the order they were asked for."""

    model_name: str
    model_version: str
    id: str
    outputs: tuple[tuple[TensorSpec, Array], ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a client may know about a model."""

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
