"""The messages of the Open Inference Protocol's gRPC service: bytes ↔ messages.

Pure. Promises that any bytes either become a request the model accepts by name, shape and datatype, or raise
`InvalidRequest` naming the field, with the checks and words of `json`. Tensors travel raw (`raw_input_contents`) or
typed (`contents`), never both in one request; the answer is typed when the request was, raw otherwise, and always raw
when an output is FP16 or BF16, which have no typed form. Large raw tensors are not copied out of the message.
Source: grpc_predict_v2.proto of the protocol, and Triton's for parameters.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from inference_server.errors import InvalidRequest
from inference_server.messages import InferenceRequest, InferenceResponse, ModelMetadata
from inference_server.oip.binary import decode_raw, encode_raw
from inference_server.oip.grpc_heads import Head, Heads
from inference_server.oip.parameters import flag, parameters_of, timeout_seconds
from inference_server.proto import inference_pb2 as pb
from inference_server.tensors import DATATYPES, NUMPY_TYPES, Array, TensorSpec, check_shape

_MAX_ID = 1024
_NAMED_IN_MESSAGE = 20
# From here on, finding the raw tensors by hand is cheaper than protobuf's copies of them.
_LARGE_BYTES = 64 * 1024
_RAW_FIELD = 7
# Fields 3 and 6 of ModelInferResponse, length-delimited.
_ID_TAG, _RAW_ANSWER_TAG = b"\x1a", b"\x32"
_HEADS: dict[tuple[object, ...], bytes] = {}
_MOST_HEADS = 256

# Which list of InferTensorContents holds a datatype, and the type of numpy array that protobuf's values fit in.
_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_NARROW = frozenset({"UINT8", "UINT16", "INT8", "INT16"})
_ALL_CONTENTS = tuple(dict.fromkeys(_CONTENTS.values()))


class Inference:
    """One ModelInfer: the message, and how its answer is to look.

    Args:
        data: The message.
        heads: What is known of messages; None parses each.

    Attributes:
        model: Name of the model as the client wrote it.
        version: Version as the client wrote it, None for whichever is served.

    Raises:
        InvalidRequest: It is not a ModelInferRequest.
    """

    __slots__ = ("_data", "_head", "_heads", "_message", "_raw", "_typed", "model", "version")

    def __init__(self, data: memoryview, heads: Heads | None = None) -> None:
        self._data, self._heads = data, heads
        self._head = head = heads.find(data) if heads is not None else None
        self._typed = False
        self.model: str
        self.version: str | None
        if head is None:
            self._parse()
        else:
            self._raw = [data[len(head.data) :]]
            self.model, self.version = head.model, head.version or None

    def _parse(self) -> None:
        data = self._data
        try:
            if len(data) < _LARGE_BYTES:
                self._message = pb.ModelInferRequest.FromString(bytes(data))
                self._raw = [memoryview(raw) for raw in self._message.raw_input_contents]
            else:
                rest, self._raw = split_raw(data)
                self._message = pb.ModelInferRequest.FromString(rest)
        except DecodeError:
            raise InvalidRequest("message: expected a ModelInferRequest") from None
        self.model, self.version = self._message.model_name, self._message.model_version or None

    def decode(self, model: ModelMetadata) -> InferenceRequest:
        """Return the request, checked against the model.

        Raises:
            InvalidRequest: A field that does not fit; the message names it.
        """
        if (head := self._head) is not None:
            if head.metadata is model:
                return self._decode_values(head)
            self._parse()  # the model was replaced by another of its name
        message = self._message
        if len(message.id) > _MAX_ID:
            raise InvalidRequest(f"id: expected at most {_MAX_ID} characters")
        timeout = None
        raw_answer: bool | None = None
        if message.parameters:
            parameters = _parameters(message.parameters, "parameters")
            timeout = timeout_seconds(parameters, "parameters")
            raw_answer = flag(parameters, "binary_data_output", "parameters")
        inputs = self._inputs(model)
        if raw_answer is not None:
            self._typed = not raw_answer
        request = InferenceRequest(inputs, self._outputs(model), message.id, timeout)
        if self._heads is not None and len(self._raw) == 1 and len(self._data) < _LARGE_BYTES:
            self._remember(self._heads, model, request)
        return request

    def _decode_values(self, head: Head) -> InferenceRequest:
        (known,) = head.request.inputs.items()
        name, array = known
        self._typed = head.typed
        values = decode_raw(self._raw[0], array.shape, DATATYPES[array.dtype], "raw_input_contents[0]", "")
        return InferenceRequest({name: values}, head.request.outputs, head.request.id, head.request.timeout)

    def _remember(self, heads: Heads, model: ModelMetadata, request: InferenceRequest) -> None:
        data, values = self._data, self._raw[0]
        before = len(data) - len(values)
        tag = bytes((_RAW_FIELD << 3 | 2,)) + _as_varint(len(values))
        # Strings are no values of a fixed size, and the values must be the last field: then all before them is as it was.
        if request.inputs and not any(array.dtype.hasobject for array in request.inputs.values()):
            rest, _ = split_raw(data)
            if rest + tag == data[:before]:
                head = bytes(data[:before])
                version = self.version or ""
                heads.keep(Head(head, self.model, version, model, request, self._typed), len(data))

    def encode(self, response: InferenceResponse) -> list[bytes | memoryview]:
        """Return the answer: the parts of a ModelInferResponse, in order."""
        if self._typed and all(spec.datatype in _CONTENTS for spec, _ in response.outputs):
            return [_typed_answer(response)]
        # A message's fields may come in any order and apart: what an answer says beside its values is made once.
        shapes = [(spec.name, spec.datatype, array.shape) for spec, array in response.outputs]
        key = (response.model_name, response.model_version, *shapes)
        head = _HEADS.get(key)
        if head is None:
            head = _answer(response).SerializeToString()
            if len(_HEADS) >= _MOST_HEADS:
                _HEADS.clear()
            _HEADS[key] = head
        parts: list[bytes | memoryview] = [head]
        if response.id:
            identity = response.id.encode("utf-8")
            parts += (_ID_TAG + _as_varint(len(identity)), identity)
        for _, array in response.outputs:
            raw = encode_raw(array)
            parts += (_RAW_ANSWER_TAG + _as_varint(len(raw)), raw)
        return parts

    def _inputs(self, model: ModelMetadata) -> dict[str, Array]:
        entries, raw = self._message.inputs, self._raw
        if len(entries) > len(model.inputs):
            raise InvalidRequest(
                f"inputs: expected {len(model.inputs)} tensors ({_named(model.inputs)}), found {len(entries)}"
            )
        if raw and len(raw) != len(entries):
            raise InvalidRequest(
                f"raw_input_contents: expected one for each of {len(entries)} inputs, found {len(raw)}"
            )
        self._typed = bool(entries) and not raw
        arrays: dict[str, Array] = {}
        for index, entry in enumerate(entries):
            where = f"inputs[{index}]"
            spec = _find(entry.name, model.inputs, where)
            if spec.name in arrays:
                raise InvalidRequest(f"{where}.name: {spec.name!r} is given twice")
            if entry.datatype != spec.datatype:
                raise InvalidRequest(
                    f"{where}.datatype: expected {spec.datatype!r}, found {entry.datatype[:20]!r}"
                )
            if entry.parameters:
                _parameters(entry.parameters, f"{where}.parameters")
            shape = check_shape(list(entry.shape), spec, where)
            if raw:
                if entry.HasField("contents"):
                    raise InvalidRequest(f"{where}.contents: expected none beside raw_input_contents")
                arrays[spec.name] = _from_raw(
                    raw[index], shape, spec.datatype, f"raw_input_contents[{index}]"
                )
            else:
                arrays[spec.name] = _from_contents(entry.contents, shape, spec.datatype, f"{where}.contents")
        if len(arrays) < len(model.inputs):
            missing = tuple(spec for spec in model.inputs if spec.name not in arrays)
            raise InvalidRequest(f"inputs: expected also {_named(missing)}")
        return arrays

    def _outputs(self, model: ModelMetadata) -> tuple[str, ...]:
        entries = self._message.outputs
        if not entries:
            return tuple([spec.name for spec in model.outputs])
        if len(entries) > len(model.outputs):
            raise InvalidRequest(
                f"outputs: expected at most {len(model.outputs)} tensors, found {len(entries)}"
            )
        names: list[str] = []
        for index, entry in enumerate(entries):
            spec = _find(entry.name, model.outputs, f"outputs[{index}]")
            if entry.parameters:
                _parameters(entry.parameters, f"outputs[{index}].parameters")
            if spec.name in names:
                raise InvalidRequest(f"outputs[{index}].name: {spec.name!r} is given twice")
            names.append(spec.name)
        return tuple(names)


def _answer(response: InferenceResponse) -> pb.ModelInferResponse:
    """Return what an answer says beside its values and the client's id."""
    reply = pb.ModelInferResponse(model_name=response.model_name, model_version=response.model_version)
    for spec, array in response.outputs:
        reply.outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
    return reply


def _typed_answer(response: InferenceResponse) -> bytes:
    reply = _answer(response)
    reply.id = response.id
    for output, (spec, array) in zip(reply.outputs, response.outputs, strict=True):
        getattr(output.contents, _CONTENTS[spec.datatype]).extend(_values(array))
    return reply.SerializeToString()


def split_raw(data: memoryview) -> tuple[bytes, list[memoryview]]:
    """Take a ModelInferRequest apart: what is not `raw_input_contents`, and views of what is.

    Source: protobuf's wire format, of which only the outermost fields matter here.

    Raises:
        InvalidRequest: The fields do not add up to the message.
    """
    rest = bytearray()
    raw: list[memoryview] = []
    at = 0
    while at < len(data):
        tag, start = _varint(data, at)
        wire_type = tag & 7
        if wire_type == 2:
            size, start = _varint(data, start)
            end = start + size
        elif wire_type == 0:
            _, end = _varint(data, start)
        elif wire_type in (1, 5):
            end = start + (8 if wire_type == 1 else 4)
        else:
            raise InvalidRequest("message: expected a ModelInferRequest")
        if end > len(data):
            raise InvalidRequest("message: expected a ModelInferRequest, found half of one")
        if tag == _RAW_FIELD << 3 | 2:
            raw.append(data[start:end])
        else:
            rest += data[at:end]
        at = end
    return bytes(rest), raw


def _as_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise InvalidRequest("message: expected a ModelInferRequest, found half of one")


def _parameters(found: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    values = {}
    for name, parameter in found.items():
        choice = parameter.WhichOneof("parameter_choice")
        values[name] = None if choice is None else getattr(parameter, choice)
    return parameters_of({"parameters": values}, where)


def _find(name: str, tensors: tuple[TensorSpec, ...], where: str) -> TensorSpec:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise InvalidRequest(f"{where}.name: expected one of {_named(tensors)}, found {name[:100]!r}")


def _named(tensors: tuple[TensorSpec, ...]) -> str:
    names = [repr(tensor.name) for tensor in tensors[:_NAMED_IN_MESSAGE]]
    return ", ".join(names) + (", …" if len(tensors) > _NAMED_IN_MESSAGE else "")


def _from_raw(raw: memoryview, shape: tuple[int, ...], datatype: str, where: str) -> Array:
    numpy_type = NUMPY_TYPES[datatype]
    if not numpy_type.hasobject and len(raw) != (expected := math.prod(shape) * numpy_type.itemsize):
        raise InvalidRequest(
            f"{where}: expected {expected} bytes for shape {list(shape)} of {datatype}, found {len(raw)}"
        )
    return decode_raw(raw, shape, datatype, where, "")


def _from_contents(
    contents: pb.InferTensorContents, shape: tuple[int, ...], datatype: str, where: str
) -> Array:
    """Return the values in the list that the protocol has for the datatype; the other lists must be empty."""
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InvalidRequest(f"{where}: {datatype} has no list of its own; send it in raw_input_contents")
    for other in _ALL_CONTENTS:
        if other != field and len(getattr(contents, other)):
            raise InvalidRequest(f"{where}: expected {field} for {datatype}, found {other}")
    values = getattr(contents, field)
    expected = math.prod(shape)
    if len(values) != expected:
        raise InvalidRequest(
            f"{where}.{field}: expected {expected} values for shape {list(shape)}, found {len(values)}"
        )
    if datatype == "BYTES":
        return _from_strings(values, shape, f"{where}.{field}")
    numpy_type = NUMPY_TYPES[datatype]
    if datatype not in _NARROW:
        return np.array(values, numpy_type).reshape(shape)
    wide = np.array(values, np.int64)
    limits = np.iinfo(numpy_type)
    wrong = (wide < limits.min) | (wide > limits.max)
    if wrong.any():
        index = int(wrong.argmax())
        raise InvalidRequest(
            f"{where}.{field}[{index}]: expected a value from {limits.min} to {limits.max} for {datatype}, "
            f"found {int(wide[index])}"
        )
    return wide.astype(numpy_type).reshape(shape)


def _from_strings(values: Any, shape: tuple[int, ...], where: str) -> Array:
    array: Array = np.empty(len(values), NUMPY_TYPES["BYTES"])
    for index, value in enumerate(values):
        try:
            array[index] = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"{where}[{index}]: expected UTF-8, as strings of ONNX are, found byte 0x{value[error.start]:02x} "
                f"at {error.start}"
            ) from None
    return array.reshape(shape)


def _values(array: Array) -> Any:
    flat = array.reshape(-1)
    if flat.dtype.kind in "OUS":
        return [
            value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
            for value in flat
        ]
    return flat.tolist()
