"""What the data plane takes and gives, whatever the protocol. Plain values, no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True, slots=True)
class GoldenFailure:
    """One thing that is wrong with the answer to a golden sample.

    Attributes:
        sample: Name of the sample; "" when the samples could not be read.
        output: Name of the output; "" when the whole sample failed.
        message: What was expected and what was found, for a person.
    """

    sample: str
    output: str
    message: str


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """What came of a model's golden samples.

    Attributes:
        outcome: Pass when all samples passed, Absent when the model brings none, else Fail.
        total: Number of samples.
        passed: How many of them passed.
        failures: The first few failures.
    """

    outcome: Literal["Pass", "Fail", "Absent"]
    total: int = 0
    passed: int = 0
    failures: tuple[GoldenFailure, ...] = ()


ABSENT = GoldenResult("Absent")
