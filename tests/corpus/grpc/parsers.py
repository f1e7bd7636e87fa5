"""The parsers of the inference server as one kind of function each: bytes to a request, or a refusal in words.

A file of the corpus is what a client sends: for ``json`` the body; for ``binary`` a line with the header
Inference-Header-Content-Length, and the body; for ``grpc`` the message.
"""

import re
from collections.abc import Callable

from inference_server.errors import InvalidRequest
from inference_server.messages import InferenceRequest, ModelMetadata
from inference_server.oip.grpc import Inference
from inference_server.oip.json import decode_request
from inference_server.tensors import TensorSpec

MODEL = ModelMetadata(
    "m",
    "1",
    (
        TensorSpec("x", "FP32", (-1, 2)),
        TensorSpec("n", "INT64", (-1,)),
        TensorSpec("s", "BYTES", (-1, 1)),
        TensorSpec("b", "BOOL", (2,)),
    ),
    (TensorSpec("y", "FP32", (-1,)), TensorSpec("z", "FP32", (-1,))),
)


def _json(content: bytes) -> InferenceRequest:
    return decode_request(content, MODEL).request


def _binary(content: bytes) -> InferenceRequest:
    line, _, body = content.partition(b"\n")
    length = int(line) if line.isdigit() and len(line) < 16 else 0
    return decode_request(body, MODEL, length).request


def _grpc(content: bytes) -> InferenceRequest:
    return Inference(memoryview(content)).decode(MODEL)


PARSERS: dict[str, Callable[[bytes], InferenceRequest]] = {"json": _json, "binary": _binary, "grpc": _grpc}


def refusal(parser: str, content: bytes) -> str:
    """Return in which words it is refused, without what differs from one to the next; "" for a request."""
    try:
        request = PARSERS[parser](content)
    except InvalidRequest as error:
        str(error).encode()  # or nobody could be told
        words = re.sub(r"^.*(?=: expected a finite number)", "#", str(error), flags=re.DOTALL)
        words = re.sub(r"0x[0-9a-f]+|(?<=expected also ).*", "#", words)
        return re.sub(r"'[^']*'|\[[^\]]*\]|-?\d+(\.\d+)?(e[+-]?\d+)?|\"[^\"]*\"", "#", words)[:200]
    assert set(request.inputs) == {spec.name for spec in MODEL.inputs}
    return ""
