"""The OpenAPI 3.1 document of this server: what it serves, for these very models.

Pure: metadata → document. Each model has paths of its own, whose schemas carry its names, datatypes and shapes. What a
schema cannot say (that the number of values is the product of a shape with open sizes) the server checks all the same.
"""

import math
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import numpy as np

from inference_server.messages import ModelMetadata
from inference_server.tensors import DYNAMIC, NUMPY_TYPES, TensorSpec

Schema = dict[str, Any]

_MAX_SIZE = 2**63 - 1
_ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_ERRORS = {
    "4XX": {
        "description": "The request is not what the protocol or the model expects.",
        "content": _ERROR_CONTENT,
    },
    "5XX": {
        "description": "Not ready, overloaded, too late, or the model failed.",
        "content": _ERROR_CONTENT,
    },
}
_NAME = {"type": "string"}
_TALLY = {
    "type": "object",
    "required": ["count", "ns"],
    "properties": {"count": {"type": "integer"}, "ns": {"type": "integer"}},
}


def document(models: Iterable[ModelMetadata], version: str) -> Schema:
    """Return the document.

    Args:
        models: Those that are served.
        version: Version of the server.
    """
    paths: Schema = {
        "/v2": _get("Server metadata", _object(name=_NAME, version=_NAME, extensions=_list(_NAME))),
        "/v2/health/live": _get("Liveness", _object(live={"type": "boolean"})),
        "/v2/health/ready": _state("Readiness", _object(ready={"type": "boolean"})),
        "/v2/models/stats": _get("Statistics of all models", _statistics()),
    }
    for model in models:
        name = quote(model.name, safe="")
        for start in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{quote(model.version, safe='')}"):
            paths |= _model_paths(start, model)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "EdgeModel inference server",
            "version": version,
            "summary": "Open Inference Protocol v2 over HTTP",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {"Error": _object(error={"type": "string"})}},
    }


def _model_paths(start: str, model: ModelMetadata) -> Schema:
    tensors = _list(
        _object(name=_NAME, datatype={"enum": sorted(NUMPY_TYPES)}, shape=_list({"type": "integer"}))
    )
    metadata = _object(name=_NAME, versions=_list(_NAME), platform=_NAME, inputs=tensors, outputs=tensors)
    ready = _object(name=_NAME, ready={"type": "boolean"})
    config = _object(
        name=_NAME, platform=_NAME, max_batch_size={"type": "integer"}, input=_list({}), output=_list({})
    )
    golden = _object(
        outcome={"enum": ["Pass", "Fail", "Absent"]}, total={"type": "integer"}, passed={"type": "integer"}
    )
    return {
        start: _get(f"Metadata of {model.name}", metadata),
        f"{start}/ready": _state(f"Readiness of {model.name}", ready),
        f"{start}/config": _get(f"Configuration of {model.name}", config),
        f"{start}/stats": _get(f"Statistics of {model.name}", _statistics()),
        f"{start}/golden": _get(f"Golden samples of {model.name}", golden),
        f"{start}/infer": {"post": _infer(model)},
    }


def _infer(model: ModelMetadata) -> Schema:
    content: Schema = {"application/json": {"schema": _response(model)}}
    binary = {
        "description": "JSON, its length in the header Inference-Header-Content-Length, then the outputs' bytes."
    }
    return {
        "summary": f"Inference with {model.name}",
        "description": "Tensors may also be sent and received as binary data, "
        "as Triton's binary tensor data extension has it.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _request(model)}}},
        "responses": {
            "200": {
                "description": "The outputs.",
                "content": {**content, "application/octet-stream": {"schema": binary}},
            },
            **_ERRORS,
        },
    }


def _request(model: ModelMetadata) -> Schema:
    inputs = [_input(spec) for spec in model.inputs]
    count = len(inputs)
    schema = _object(
        inputs={
            "type": "array",
            "items": inputs[0] if count == 1 else {"oneOf": inputs},
            "minItems": count,
            "maxItems": count,
        }
    )
    if count > 1:
        schema["properties"]["inputs"]["allOf"] = [
            {"contains": _object(name={"const": spec.name})} for spec in model.inputs
        ]
    wanted = _object(name={"enum": [spec.name for spec in model.outputs]})
    wanted["properties"]["parameters"] = _parameters(binary_data={"type": ["boolean", "null"]})
    schema["properties"] |= {
        "id": {"type": ["string", "null"], "maxLength": 1024},
        "outputs": {"type": ["array", "null"], "items": wanted, "maxItems": len(model.outputs)},
        "parameters": _parameters(
            binary_data_output={"type": ["boolean", "null"]},
            timeout={
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": _MAX_SIZE,
                "description": "Microseconds from the complete request after which nobody wants the answer; 0: no limit.",
            },
            sequence_id={"enum": [0, "", False, None], "description": "Not supported."},
        ),
    }
    return schema


def _input(spec: TensorSpec) -> Schema:
    sizes = [{"type": "integer", "minimum": 0} if size == DYNAMIC else {"const": size} for size in spec.shape]
    shape: Schema = {"type": "array", "minItems": len(sizes), "maxItems": len(sizes)}
    if sizes:
        # Draft 2020-12 has a schema for each place.
        shape |= {"prefixItems": sizes} if any(size != sizes[0] for size in sizes) else {"items": sizes[0]}
    schema = _object(name={"const": spec.name}, datatype={"const": spec.datatype}, shape=shape)
    if spec.datatype == "BF16":
        schema["required"].append("parameters")
        schema["properties"]["parameters"] = _object(binary_data_size={"type": "integer", "minimum": 0})
        return schema
    value = _value(spec.datatype)
    flat: Schema = {"type": "array", "items": value}
    if DYNAMIC not in spec.shape:
        flat["minItems"] = flat["maxItems"] = math.prod(spec.shape)
    schema["required"].append("data")
    schema["properties"]["data"] = flat if len(spec.shape) < 2 else {"anyOf": [flat, _nested(spec, value)]}
    schema["properties"]["parameters"] = _parameters()
    return schema


def _nested(spec: TensorSpec, value: Schema) -> Schema:
    schema = value
    for size in reversed(spec.shape):
        schema = {"type": "array", "items": schema}
        if size != DYNAMIC:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _response(model: ModelMetadata) -> Schema:
    output = _object(
        name={"enum": [spec.name for spec in model.outputs]},
        datatype={"enum": sorted({spec.datatype for spec in model.outputs})},
        shape=_list({"type": "integer", "minimum": 0}),
    )
    output["properties"] |= {
        "data": {"type": "array", "description": "Flat, in row order; NaN and infinity are null."},
        "parameters": _parameters(binary_data_size={"type": "integer"}),
    }
    schema = _object(
        model_name={"const": model.name}, model_version={"const": model.version}, outputs=_list(output)
    )
    schema["properties"]["id"] = {"type": "string"}
    return schema


def _value(datatype: str) -> Schema:
    numpy_type = NUMPY_TYPES[datatype]
    if numpy_type.kind == "f":
        limits = np.finfo(numpy_type)
        if datatype == "FP64":
            return {"type": "number", "minimum": float(limits.min), "maximum": float(limits.max)}
        # Up to half a step over the largest number a value rounds to that; from there on, to infinity.
        beyond = float(limits.max) + 2.0 ** int(limits.maxexp - limits.nmant - 2)
        return {"type": "number", "exclusiveMinimum": -beyond, "exclusiveMaximum": beyond}
    if numpy_type.kind in "iu":
        return {
            "type": "integer",
            "minimum": int(np.iinfo(numpy_type).min),
            "maximum": int(np.iinfo(numpy_type).max),
        }
    return {"type": "boolean" if numpy_type.kind == "b" else "string"}


def _statistics() -> Schema:
    inference = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    model = _object(
        name=_NAME,
        version=_NAME,
        last_inference={"type": "integer", "description": "Unix time in milliseconds; 0: never."},
        inference_count={"type": "integer"},
        execution_count={"type": "integer"},
        inference_stats=_object(**dict.fromkeys(inference, _TALLY)),
        batch_stats=_list(_object(batch_size={"type": "integer"})),
    )
    return _object(model_stats=_list(model))


def _get(summary: str, schema: Schema) -> Schema:
    return {"get": {"summary": summary, "responses": {"200": _answer("As asked.", schema), **_ERRORS}}}


def _state(summary: str, schema: Schema) -> Schema:
    responses = {
        "200": _answer("Ready.", schema),
        "503": _answer("Not ready.", schema),
        "4XX": _ERRORS["4XX"],
    }
    return {"get": {"summary": summary, "responses": responses}}


def _answer(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(**properties: Any) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _parameters(**properties: Any) -> Schema:
    return {"type": ["object", "null"], "properties": properties}


def _list(items: Any) -> Schema:
    return {"type": "array", "items": items}
