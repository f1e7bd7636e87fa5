"""The bodies of the Open Inference Protocol over HTTP: bytes ↔ messages.

Pure. Promises that any bytes either become a request the model accepts by name, shape and datatype, or raise
`InvalidRequest` naming the field. A body is JSON, or JSON followed by the binary data of some of its tensors
(`binary`). Unknown members and parameters are ignored, as the protocol's extension rule asks. JSON has no NaN
or infinity: a request with one is refused, in a response they become null.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import orjson

from inference_server.errors import InvalidRequest
from inference_server.messages import InferenceRequest, InferenceResponse, ModelMetadata
from inference_server.oip.binary import Buffer, decode_raw, decode_whole, encode_raw
from inference_server.oip.layouts import Layouts
from inference_server.oip.parameters import binary_size, flag, parameters_of, timeout_seconds
from inference_server.tensors import Array, TensorSpec, check_shape, decode_data, encode_data

_MAX_ID = 1024
_NAMED_IN_MESSAGE = 20
# Bodies beyond this are not read a second time only to say where their NaN is.
_EXPLAINED_BYTES = 64 * 1024
_EXPLAINED_CHARACTERS = 100
_MEMBERS = frozenset({"id", "inputs", "outputs", "name", "datatype", "shape", "data", "parameters"})
_NOTHING: frozenset[str] = frozenset()
_NO_BINARY = memoryview(b"")
_MOST_TEXTS = 256
_texts: dict[tuple[Any, ...], bytes] = {}


@dataclass(slots=True)
class Decoded:
    """A request, and how the client wants its outputs.

    Attributes:
        request: What the data plane takes.
        binary: Names of the outputs to answer as binary data; the others go into the JSON.
    """

    request: InferenceRequest
    binary: frozenset[str] = _NOTHING


@dataclass(slots=True)
class Encoded:
    """The body of a response.

    Attributes:
        body: Its parts, in order: the JSON, then the binary data of each output that has some.
        header_length: Bytes of JSON before the binary data; None when there is none.
    """

    body: tuple[Buffer, ...]
    header_length: int | None = None


def decode_request(
    body: Buffer, model: ModelMetadata, header_length: int | None = None, layouts: Layouts | None = None
) -> Decoded:
    """Return the request in `body`, checked against the model.

    Args:
        body: The HTTP body. Arrays of binary data are views of it.
        model: The model it is for.
        header_length: Bytes of JSON at its start, the rest being binary data; None for JSON alone, 0 for a body that is
            the one input of the model and nothing else, whose outputs are wanted as binary data too.
        layouts: What is known of requests with binary data; None parses each.

    Raises:
        InvalidRequest: Malformed JSON, or a field that does not fit; the message names it.
    """
    if header_length == 0:
        return _decode_whole(body, model)
    text, binary = body, _NO_BINARY
    if header_length is None:
        if layouts is not None and (request := layouts.fill(body, model)) is not None:
            return Decoded(request)
    else:
        if header_length > len(body):
            raise InvalidRequest(
                f"Inference-Header-Content-Length: expected at most the {len(body)} bytes of the body, "
                f"found {header_length}"
            )
        text = bytes(body[:header_length])
        if layouts is not None and (found := layouts.find(text, body, model)) is not None:
            return Decoded(*found)
        binary = memoryview(body)[header_length:]
    document = _parse(text)
    request_id = document.get("id")
    if request_id is None:
        request_id = ""
    elif not isinstance(request_id, str) or len(request_id) > _MAX_ID:
        raise InvalidRequest(f"id: expected a string of at most {_MAX_ID} characters")
    inputs = _inputs(document.get("inputs"), model, binary)
    timeout, all_binary = None, False
    if "parameters" in document:
        parameters = parameters_of(document, "parameters")
        timeout = timeout_seconds(parameters, "parameters")
        all_binary = flag(parameters, "binary_data_output", "parameters") or False
    names, wanted = _outputs(document.get("outputs"), model, all_binary)
    for spec in model.outputs:
        if spec.datatype == "BF16" and spec.name in names and spec.name not in wanted:
            raise InvalidRequest(
                f"outputs: {spec.name!r} is BF16, which has no form in JSON; ask for it as binary data, by "
                "parameters.binary_data_output or its parameters.binary_data"
            )
    request = InferenceRequest(inputs, names, request_id, timeout)
    if layouts is not None:
        if binary:
            layouts.keep(bytes(text), binary, model, request, wanted)
        elif not wanted:
            layouts.keep_form(body, model, request)
    return Decoded(request, wanted)


def encode_response(response: InferenceResponse, binary: frozenset[str] = _NOTHING) -> Encoded:
    """Return the body of a response.

    Args:
        response: The outputs.
        binary: Names of those that the client wants as binary data.
    """
    if binary and len(binary) == len(response.outputs) and not response.id:
        return _all_binary(response)
    document: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        document["id"] = response.id
    raw: list[Buffer] = []
    outputs = document["outputs"] = []
    for spec, array in response.outputs:
        output = {"name": spec.name, "datatype": spec.datatype, "shape": array.shape}
        if spec.name in binary:
            raw.append(encode_raw(array))
            output["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            output["data"] = encode_data(array)
        outputs.append(output)
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Encoded((text, *raw), len(text)) if binary else Encoded((text,))


def _all_binary(response: InferenceResponse) -> Encoded:
    """Return the body of a response without an id whose outputs are all binary: its JSON is remembered by what it says."""
    raw = [encode_raw(array) for _, array in response.outputs]
    sizes = [
        (spec.name, spec.datatype, array.shape, len(data))
        for (spec, array), data in zip(response.outputs, raw, strict=True)
    ]
    key = (response.model_name, response.model_version, *sizes)
    text = _texts.get(key)
    if text is None:
        outputs = [
            {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
            for name, datatype, shape, size in sizes
        ]
        if len(_texts) >= _MOST_TEXTS:
            _texts.clear()
        text = _texts[key] = orjson.dumps(
            {
                "model_name": response.model_name,
                "model_version": response.model_version,
                "outputs": outputs,
            }
        )
    return Encoded((text, *raw), len(text))


def _parse(text: Buffer) -> dict[str, Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        where = _not_finite(text)
        if where:
            raise InvalidRequest(
                f"{where}: expected a finite number; JSON has no NaN or infinity, send the tensor as binary data"
            ) from None
        raise InvalidRequest(f"body: expected JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest("body: expected a JSON object with 'inputs'")
    return document


def _not_finite(text: Buffer) -> str:
    """Return where the first NaN or infinity is in what is JSON but for such; "" when that is not what is wrong."""
    if len(text) > _EXPLAINED_BYTES:
        return ""
    try:
        left: list[tuple[str, Any]] = [("", json.loads(bytes(text)))]
    except (ValueError, RecursionError):
        return ""
    while left:
        where, value = left.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return where[:_EXPLAINED_CHARACTERS] or "body"
        if isinstance(value, dict):
            # What the protocol has no name for may be anything, halves of surrogate pairs included.
            names = [name if name in _MEMBERS else "…" for name in value]
            pairs = list(
                zip((f"{where}.{name}" if where else name for name in names), value.values(), strict=True)
            )
            left += reversed(pairs)
        elif isinstance(value, list):
            left += [(f"{where}[{index}]", item) for index, item in reversed(list(enumerate(value)))]
    return ""


def _decode_whole(body: Buffer, model: ModelMetadata) -> Decoded:
    if len(model.inputs) != 1:
        raise InvalidRequest(
            f"Inference-Header-Content-Length: 0 is for models of one input; this one has {_named(model.inputs)}"
        )
    spec = model.inputs[0]
    names = tuple(output.name for output in model.outputs)
    return Decoded(
        InferenceRequest({spec.name: decode_whole(memoryview(body), spec)}, names), frozenset(names)
    )


def _named(tensors: tuple[TensorSpec, ...]) -> str:
    names = [repr(tensor.name) for tensor in tensors[:_NAMED_IN_MESSAGE]]
    return ", ".join(names) + (", …" if len(tensors) > _NAMED_IN_MESSAGE else "")


def _find(entry: object, tensors: tuple[TensorSpec, ...], where: str) -> tuple[dict[str, Any], TensorSpec]:
    """Return one element of `inputs` or `outputs` and the model's tensor of that name."""
    if not isinstance(entry, dict):
        raise InvalidRequest(f"{where}: expected an object")
    name = entry.get("name")
    for tensor in tensors:
        if tensor.name == name:
            return entry, tensor
    found = repr(name[:100]) if isinstance(name, str) else "no string"
    raise InvalidRequest(f"{where}.name: expected one of {_named(tensors)}, found {found}")


def _inputs(entries: object, model: ModelMetadata, binary: memoryview) -> dict[str, Array]:
    if not isinstance(entries, list):
        raise InvalidRequest("inputs: expected a list of tensors")
    # Counted first, so that a body of a million tensors costs one comparison.
    if len(entries) > len(model.inputs):
        raise InvalidRequest(
            f"inputs: expected {len(model.inputs)} tensors ({_named(model.inputs)}), found {len(entries)}"
        )
    arrays: dict[str, Array] = {}
    claimed = 0
    for index, item in enumerate(entries):
        where = f"inputs[{index}]"
        entry, spec = _find(item, model.inputs, where)
        if spec.name in arrays:
            raise InvalidRequest(f"{where}.name: {spec.name!r} is given twice")
        if (datatype := entry.get("datatype")) != spec.datatype:
            found = repr(datatype[:20]) if isinstance(datatype, str) else "no string"
            raise InvalidRequest(f"{where}.datatype: expected {spec.datatype!r}, found {found}")
        shape = check_shape(entry.get("shape"), spec, where)
        size = None
        if "parameters" in entry:
            parameters = parameters_of(entry, f"{where}.parameters")
            size = binary_size(parameters, len(binary) - claimed, f"{where}.parameters")
        if size is None:
            arrays[spec.name] = decode_data(entry.get("data"), shape, spec.datatype, where)
            continue
        if "data" in entry:
            raise InvalidRequest(f"{where}: expected either data or parameters.binary_data_size, found both")
        arrays[spec.name] = decode_raw(binary[claimed : claimed + size], shape, spec.datatype, where)
        claimed += size
    if len(arrays) < len(model.inputs):
        missing = tuple(spec for spec in model.inputs if spec.name not in arrays)
        raise InvalidRequest(f"inputs: expected also {_named(missing)}")
    if claimed != len(binary):
        raise InvalidRequest(
            f"body: expected {claimed} bytes of binary data after the JSON, as the inputs say, found {len(binary)}"
        )
    return arrays


def _outputs(
    entries: object, model: ModelMetadata, all_binary: bool
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names of the outputs that were asked for, all when none is named, and of those wanted as binary data."""
    if entries is None or entries == []:
        names = [spec.name for spec in model.outputs]
        return tuple(names), frozenset(names) if all_binary else _NOTHING
    if not isinstance(entries, list):
        raise InvalidRequest("outputs: expected a list of tensors")
    if len(entries) > len(model.outputs):
        raise InvalidRequest(f"outputs: expected at most {len(model.outputs)} tensors, found {len(entries)}")
    names, binary = [], []
    for index, item in enumerate(entries):
        where = f"outputs[{index}]"
        entry, spec = _find(item, model.outputs, where)
        if spec.name in names:
            raise InvalidRequest(f"{where}.name: {spec.name!r} is given twice")
        names.append(spec.name)
        chosen = None
        if "parameters" in entry:
            parameters = parameters_of(entry, f"{where}.parameters")
            chosen = flag(parameters, "binary_data", f"{where}.parameters")
        if all_binary if chosen is None else chosen:
            binary.append(spec.name)
    return tuple(names), frozenset(binary)
