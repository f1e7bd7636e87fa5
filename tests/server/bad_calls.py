"""gRPC calls that are wrong in one way each, and what is to be answered: which code, and which words.

They are for the model of ``onnx_models.mlp`` under the name m, as those of ``bad_requests``.
"""

import gzip
from dataclasses import dataclass, field
from typing import Any

from inference_server.grpc.messages import Code, frame_message
from inference_server.proto import inference_pb2 as pb
from tests.server.bad_requests import BODY_BYTES, RAW

SERVICE = "/inference.GRPCInferenceService"
INFER = f"{SERVICE}/ModelInfer"


@dataclass(frozen=True, slots=True)
class BadCall:
    """One wrong call.

    Attributes:
        name: what is wrong.
        content: its message with the prefix of gRPC, or what is sent in its place.
        code: to be answered.
        words: of the status' message.
        path: the method.
        headers: besides the usual; an underscore stands for a hyphen.
    """

    name: str
    content: bytes
    code: Code
    words: str
    path: str = INFER
    headers: dict[str, str] = field(default_factory=dict)


def message(**changes: Any) -> bytes:
    """Return a right ModelInferRequest with changes to it, or to its input (``name``, ``datatype``, ``shape``)."""
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[RAW])
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 64]}
    entry |= {name: changes.pop(name) for name in tuple(changes) if name in entry}
    request.inputs.add(**entry)
    request.MergeFrom(pb.ModelInferRequest(**changes))
    return request.SerializeToString()


def _with_raw(*raw: bytes) -> bytes:
    request = pb.ModelInferRequest.FromString(message())
    request.ClearField("raw_input_contents")
    request.raw_input_contents.extend(raw)
    return request.SerializeToString()


def _with_contents(raw: bool = False, **contents: Any) -> bytes:
    request = pb.ModelInferRequest.FromString(message())
    if not raw:
        request.ClearField("raw_input_contents")
    for name, values in contents.items():
        getattr(request.inputs[0].contents, name).extend(values)
    return request.SerializeToString()


GOOD_CALL = frame_message(message())

_INVALID = Code.INVALID_ARGUMENT


def _messages() -> list[BadCall]:
    outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(name="q")]
    another = [pb.ModelInferRequest.InferInputTensor(name="z", datatype="FP32", shape=[1])]
    same = [pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 64])]
    wrong: dict[str, tuple[bytes, str]] = {
        "no message of protobuf": (b"\xff" * 50, "message"),
        "half a message": (message()[:-5], "message"),
        "an empty message but for the model": (
            pb.ModelInferRequest(model_name="m").SerializeToString(),
            "inputs",
        ),
        "an unknown input": (message(name="z"), "inputs[0].name"),
        "another input beside": (message(inputs=another, raw_input_contents=[b"\0\0\0\0"]), "inputs"),
        "an input twice": (message(inputs=same, raw_input_contents=[RAW]), "inputs"),
        "another datatype": (message(datatype="INT64"), "inputs[0].datatype"),
        "an unknown datatype": (message(datatype="FP8"), "inputs[0].datatype"),
        "a shape too small": (message(shape=[1, 63]), "inputs[0].shape"),
        "a negative shape": (message(shape=[-1, 64]), "inputs[0].shape"),
        "a shape beyond memory": (message(shape=[2**40, 64]), "inputs[0].shape"),
        "a shape whose product overflows": (message(shape=[2**62, 64]), "inputs[0].shape"),
        "a shape of rank 10,000": (message(shape=[1] * 10_000), "inputs[0].shape"),
        "an unknown output": (message(outputs=outputs), "outputs[0].name"),
        "raw data too short": (_with_raw(RAW[:-1]), "raw_input_contents[0]"),
        "raw data too long": (_with_raw(RAW * 2), "raw_input_contents[0]"),
        "raw data for more inputs": (_with_raw(RAW, RAW), "raw_input_contents"),
        "no data": (_with_raw(), "contents"),
        "too few values": (_with_contents(fp32_contents=[0.5]), "fp32_contents"),
        "values of another type": (_with_contents(int_contents=[1] * 64), "contents"),
        "values beside raw data": (_with_contents(raw=True, fp32_contents=[0.5] * 64), "contents"),
        "an id of 100 kB": (message(id="i" * 100_000), "id"),
    }
    found = [BadCall(name, frame_message(raw), _INVALID, words) for name, (raw, words) in wrong.items()]
    unknown = {"an unknown model": {"model_name": "none"}, "an unknown version": {"model_version": "9"}}
    found += [
        BadCall(name, frame_message(message(**changes)), Code.NOT_FOUND, *changes.values())
        for name, changes in unknown.items()
    ]
    return found


def _frames() -> list[BadCall]:
    packed = gzip.compress(message())
    bomb = gzip.compress(bytes(20 * BODY_BYTES))

    def compressed(raw: bytes) -> bytes:
        return b"\1" + len(raw).to_bytes(4, "big") + raw

    gzipped = {"grpc_encoding": "gzip"}
    large = frame_message(_with_raw(bytes(BODY_BYTES + 1)))
    return [
        BadCall("no bytes at all", b"", _INVALID, ""),
        BadCall("a prefix cut short", b"\0\0\0", _INVALID, ""),
        BadCall("less than the prefix says", b"\0\0\0\1\0" + bytes(10), _INVALID, ""),
        BadCall("a prefix of 4 GB", b"\0\xff\xff\xff\xff" + bytes(10), Code.RESOURCE_EXHAUSTED, ""),
        BadCall("two messages", GOOD_CALL * 2, _INVALID, ""),
        BadCall("a message over the limit", large, Code.RESOURCE_EXHAUSTED, ""),
        BadCall("compressed without an encoding", compressed(packed), Code.UNIMPLEMENTED, "grpc-encoding"),
        BadCall(
            "an unknown encoding", compressed(packed), Code.UNIMPLEMENTED, "", headers={"grpc_encoding": "br"}
        ),
        BadCall("gzip that is none", compressed(message()), _INVALID, "", headers=gzipped),
        BadCall("gzip cut short", compressed(packed[:-9]), _INVALID, "", headers=gzipped),
        BadCall("a gzip bomb", compressed(bomb), Code.RESOURCE_EXHAUSTED, "", headers=gzipped),
        BadCall("an unknown flag", b"\7" + GOOD_CALL[1:], _INVALID, ""),
    ]


def _calls() -> list[BadCall]:
    timeout = {
        "a timeout that is none": "soon",
        "a timeout of nothing": "S",
        "a timeout too long": "9" * 30 + "S",
    }
    return [
        BadCall("an unknown method", GOOD_CALL, Code.UNIMPLEMENTED, "", path=f"{SERVICE}/Nothing"),
        BadCall("an unknown service", GOOD_CALL, Code.UNIMPLEMENTED, "", path="/none.Service/Call"),
        BadCall("a path of 5 kB", GOOD_CALL, Code.UNIMPLEMENTED, "", path="/" + "n" * 5000),
        BadCall(
            "rubbish for metadata", frame_message(b"\xff" * 20), _INVALID, "", path=f"{SERVICE}/ModelMetadata"
        ),
        BadCall(
            "the deadline has passed", GOOD_CALL, Code.DEADLINE_EXCEEDED, "", headers={"grpc_timeout": "1n"}
        ),
        *(
            BadCall(name, GOOD_CALL, _INVALID, "grpc-timeout", headers={"grpc_timeout": value})
            for name, value in timeout.items()
        ),
    ]


BAD_CALLS = [*_messages(), *_frames(), *_calls()]
