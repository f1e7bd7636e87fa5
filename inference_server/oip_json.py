"""The JSON bodies of the Open Inference Protocol: bytes ↔ messages.

Pure. Promises that any bytes either become a request the model accepts by name, shape and datatype, or
raise `InvalidRequest` naming the field. Unknown members are ignored, as the protocol's extension rule asks;
`parameters` must be an object and is otherwise ignored. JSON has no NaN or infinity: in a response they
become null.
"""

from typing import Any

import orjson

from inference_server.errors import InvalidRequest
from inference_server.messages import GoldenResult, InferenceRequest, InferenceResponse, ModelMetadata
from inference_server.tensors import Array, TensorSpec, check_shape, decode_data, encode_data

PLATFORM = "onnxruntime_onnx"

_MAX_ID = 1024
_NAMED_IN_MESSAGE = 20


def decode_request(body: bytes, model: ModelMetadata) -> InferenceRequest:
    """Return the request in `body`, checked against the model.

    Args:
        body: The HTTP body.
        model: The model it is for.

    Raises:
        InvalidRequest: Malformed JSON, or a field that does not fit; the message names it.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"body: expected JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest("body: expected a JSON object with 'inputs'")
    request_id = document.get("id", "")
    if not isinstance(request_id, str) or len(request_id) > _MAX_ID:
        raise InvalidRequest(f"id: expected a string of at most {_MAX_ID} characters")
    _check_parameters(document, "parameters")
    return InferenceRequest(
        _inputs(document.get("inputs"), model), _outputs(document.get("outputs"), model), request_id
    )


def encode_response(response: InferenceResponse) -> bytes:
    """Return the JSON body of a response."""
    document: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        document["id"] = response.id
    document["outputs"] = [
        {"name": spec.name, "datatype": spec.datatype, "shape": array.shape, "data": encode_data(array)}
        for spec, array in response.outputs
    ]
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_metadata(model: ModelMetadata) -> bytes:
    """Return the JSON body of the model metadata endpoint."""
    document: dict[str, Any] = {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in model.inputs],
        "outputs": [_tensor(spec) for spec in model.outputs],
    }
    if model.parameters:
        document["parameters"] = dict(model.parameters)
    return orjson.dumps(document)


def encode_golden(result: GoldenResult) -> bytes:
    """Return the JSON body of the golden samples endpoint, which is this server's own."""
    return orjson.dumps(result)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _check_parameters(document: dict[str, Any], where: str) -> None:
    if not isinstance(document.get("parameters", {}), dict):
        raise InvalidRequest(f"{where}: expected an object")


def _named(tensors: tuple[TensorSpec, ...]) -> str:
    names = [repr(tensor.name) for tensor in tensors[:_NAMED_IN_MESSAGE]]
    return ", ".join(names) + (", …" if len(tensors) > _NAMED_IN_MESSAGE else "")


def _find(entry: object, tensors: tuple[TensorSpec, ...], where: str) -> tuple[dict[str, Any], TensorSpec]:
    """Return one element of `inputs` or `outputs` and the model's tensor of that name."""
    if not isinstance(entry, dict):
        raise InvalidRequest(f"{where}: expected an object")
    _check_parameters(entry, f"{where}.parameters")
    name = entry.get("name")
    for tensor in tensors:
        if tensor.name == name:
            return entry, tensor
    found = repr(name[:100]) if isinstance(name, str) else "no string"
    raise InvalidRequest(f"{where}.name: expected one of {_named(tensors)}, found {found}")


def _inputs(entries: object, model: ModelMetadata) -> dict[str, Array]:
    if not isinstance(entries, list):
        raise InvalidRequest("inputs: expected a list of tensors")
    # Counted first, so that a body of a million tensors costs one comparison.
    if len(entries) > len(model.inputs):
        raise InvalidRequest(
            f"inputs: expected {len(model.inputs)} tensors ({_named(model.inputs)}), found {len(entries)}"
        )
    arrays: dict[str, Array] = {}
    for index, item in enumerate(entries):
        where = f"inputs[{index}]"
        entry, spec = _find(item, model.inputs, where)
        if spec.name in arrays:
            raise InvalidRequest(f"{where}.name: {spec.name!r} is given twice")
        if (datatype := entry.get("datatype")) != spec.datatype:
            found = repr(datatype[:20]) if isinstance(datatype, str) else "no string"
            raise InvalidRequest(f"{where}.datatype: expected {spec.datatype!r}, found {found}")
        shape = check_shape(entry.get("shape"), spec, where)
        arrays[spec.name] = decode_data(entry.get("data"), shape, spec.datatype, where)
    if len(arrays) < len(model.inputs):
        missing = tuple(spec for spec in model.inputs if spec.name not in arrays)
        raise InvalidRequest(f"inputs: expected also {_named(missing)}")
    return arrays


def _outputs(entries: object, model: ModelMetadata) -> tuple[str, ...]:
    """Return the names of the outputs that were asked for; all of them when none is named."""
    if entries is None or entries == []:
        return tuple(spec.name for spec in model.outputs)
    if not isinstance(entries, list):
        raise InvalidRequest("outputs: expected a list of tensors")
    if len(entries) > len(model.outputs):
        raise InvalidRequest(f"outputs: expected at most {len(model.outputs)} tensors, found {len(entries)}")
    names: list[str] = []
    for index, item in enumerate(entries):
        _, spec = _find(item, model.outputs, f"outputs[{index}]")
        if spec.name in names:
            raise InvalidRequest(f"outputs[{index}].name: {spec.name!r} is given twice")
        names.append(spec.name)
    return tuple(names)
