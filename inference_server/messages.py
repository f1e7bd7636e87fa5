"""What the data plane takes and gives, whatever the protocol. Plain values, no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from inference_server.tensors import Array, TensorSpec


@dataclass(slots=True)
class Call:
    """What a protocol knows of an inference request beside its tensors.

    Attributes:
        protocol: Label for metrics, "http" or "grpc".
        model: Name of the model as the client wrote it.
        version: Version as the client wrote it; None for whichever is served.
        deadline: Moment of `time.monotonic()` by which the client wants the answer; None for none.
        trace: W3C `traceparent` as it came; "" for none.
        cache: Whether the client lets the answer come from the result cache.
        received: Moment of `time.monotonic()` at which the request was complete; 0 until the data plane has it.
    """

    protocol: str
    model: str
    version: str | None = None
    deadline: float | None = None
    trace: str = ""
    cache: bool = True
    received: float = 0.0


# The two that every request makes are not frozen: it would triple the time to make one, to a microsecond and a half.
@dataclass(slots=True)
class InferenceRequest:
    """Decoded inputs of one request.

    Attributes:
        inputs: Arrays by input name; every input of the model is there.
        outputs: Names of the outputs to compute, in the order to return them.
        id: The client's own id, returned unchanged; "" when it gave none.
        timeout: Seconds from the request's arrival after which nobody wants the answer; None for none. On the wire it is
            the parameter `timeout`, in microseconds, as Triton has it.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    id: str = ""
    timeout: float | None = None


@dataclass(slots=True)
class InferenceResponse:
    """Outputs of one request, in the order they were asked for."""

    model_name: str
    model_version: str
    id: str
    outputs: tuple[tuple[TensorSpec, Array], ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a client may know about a model.

    Attributes:
        name: Its name in URLs.
        version: Its version in URLs.
        inputs: What it takes.
        outputs: What it gives.
        parameters: How it is computed here: what was calibrated or set, by name.
    """

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)


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
