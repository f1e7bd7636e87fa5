"""What is told of a request when it is over, to the request log and to a trace. No tensor, and no other content."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One inference request that has ended.

    Attributes:
        model: Model as the client wrote it.
        version: Version that answered; "" when none did.
        protocol: "http" or "grpc".
        id: The request's own id.
        code: Status, as in `inference_requests_total`.
        total: Seconds from the complete request to its answer.
        decode: Seconds from the complete request until it began to wait for its turn.
        queue: Seconds it waited for its turn; 0 when it was never computed.
        compute: Seconds in ONNX Runtime, of the whole batch it was part of.
        rows: Rows of that batch; 0 when it was never computed.
        bytes_in: Bytes of its input tensors.
        bytes_out: Bytes of its output tensors.
        trace: W3C trace id that it came with, or "".
        cache: What the result cache did, or "".
    """

    model: str
    version: str
    protocol: str
    id: str
    code: str
    total: float
    decode: float = 0.0
    queue: float = 0.0
    compute: float = 0.0
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    trace: str = ""
    cache: str = ""
