"""Request and response bodies of the protocol."""

import json

import numpy as np
import pytest

from inference_server.errors import InvalidRequest
from inference_server.messages import InferenceResponse, ModelMetadata
from inference_server.oip.documents import encode_metadata
from inference_server.oip.json import decode_request, encode_response
from inference_server.tensors import TensorSpec

A, B = TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (2,))
SUM, DIFFERENCE = TensorSpec("sum", "FP32", (-1, 2)), TensorSpec("difference", "FP32", (-1, 2))
MODEL = ModelMetadata("m", "3", (A, B), (SUM, DIFFERENCE))


def body(**changes):
    document = {
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
            {"name": "b", "datatype": "INT64", "shape": [2], "data": [3, 4]},
        ]
    }
    document.update(changes)
    return json.dumps(document).encode()


def test_a_request_becomes_arrays_by_name():
    request = decode_request(body(id="r-1", parameters={"anything": 5}), MODEL).request
    assert request.id == "r-1"
    assert request.outputs == ("sum", "difference")
    assert request.inputs["a"].tolist() == [[1.0, 2.0]]
    assert request.inputs["b"].dtype == np.int64


def test_outputs_are_selected_in_the_order_asked_for():
    request = decode_request(
        body(outputs=[{"name": "difference"}, {"name": "sum", "parameters": {}}]), MODEL
    ).request
    assert request.outputs == ("difference", "sum")
    assert decode_request(body(outputs=[]), MODEL).request.outputs == ("sum", "difference")


def test_inputs_may_come_in_any_order_and_with_unknown_members():
    document = json.loads(body())
    document["inputs"].reverse()
    document["inputs"][0]["extension"] = {"deep": [1]}
    assert set(decode_request(json.dumps(document).encode(), MODEL).request.inputs) == {"a", "b"}


def one(**changes):
    tensor = {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    tensor.update(changes)
    return [tensor, {"name": "b", "datatype": "INT64", "shape": [2], "data": [3, 4]}]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "body: expected JSON"),
        (b"{", "body: expected JSON"),
        (b"\xff\xfe", "body: expected JSON"),
        (b'{"inputs": [NaN]}', "inputs[0]: expected a finite number; JSON has no NaN"),
        (b'{"inputs": [{"data": [1, 1e999, 1]}]}', "inputs[0].data[1]: expected a finite number"),
        (b'{"\\ud800": [NaN]}', "…[0]: expected a finite number"),
        (b"[" * 100_000, "body: expected JSON"),
        (b'{"a":' * 100_000, "body: expected JSON"),
        (b"[]", "body: expected a JSON object"),
        (b"null", "body: expected a JSON object"),
        (b"{}", "inputs: expected a list of tensors"),
        (b'{"inputs": {}}', "inputs: expected a list of tensors"),
        (b'{"inputs": []}', "inputs: expected also 'a', 'b'"),
        (b'{"inputs": [1]}', "inputs[0]: expected an object"),
        (b'{"inputs": [{}]}', "inputs[0].name: expected one of 'a', 'b', found no string"),
        (body(id=7), "id: expected a string"),
        (body(id="x" * 1025), "id: expected a string of at most 1024"),
        (body(parameters=[]), "parameters: expected an object"),
        (body(inputs=one(name="c")), "inputs[0].name: expected one of 'a', 'b', found 'c'"),
        (body(inputs=one(name=["a"])), "inputs[0].name: expected one of 'a', 'b', found no string"),
        (body(inputs=one(name="b", datatype="INT64", shape=[2])), "inputs[1].name: 'b' is given twice"),
        (body(inputs=[*one(), {}]), "inputs: expected 2 tensors ('a', 'b'), found 3"),
        (body(inputs=one()[:1]), "inputs: expected also 'b'"),
        (body(inputs=one(datatype="FP64")), "inputs[0].datatype: expected 'FP32', found 'FP64'"),
        (body(inputs=one(datatype=None)), "inputs[0].datatype: expected 'FP32', found no string"),
        (body(inputs=one(shape=[1, 3])), "inputs[0].shape[1]: expected 2, found 3"),
        (body(inputs=one(data=[1])), "inputs[0].data: expected 2 values"),
        (body(inputs=one(parameters=3)), "inputs[0].parameters: expected an object"),
        (body(outputs={}), "outputs: expected a list"),
        (body(outputs=[{"name": "product"}]), "outputs[0].name: expected one of 'sum', 'difference'"),
        (body(outputs=[{"name": "sum"}, {"name": "sum"}]), "outputs[1].name: 'sum' is given twice"),
        (body(outputs=[{"name": "sum"}] * 3), "outputs: expected at most 2 tensors, found 3"),
    ],
)
def test_a_bad_body_is_refused_by_its_field(raw, message):
    with pytest.raises(InvalidRequest) as refusal:
        decode_request(raw, MODEL)
    assert message in str(refusal.value)


HALF = ModelMetadata("m", "1", (A,), (TensorSpec("f", "FP32", ()), TensorSpec("h", "BF16", ())))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"outputs": [{"name": "f"}, {"name": "h"}]},
        {
            "outputs": [{"name": "h", "parameters": {"binary_data": False}}],
            "parameters": {"binary_data_output": True},
        },
    ],
)
def test_bf16_is_not_answered_in_json(asked):
    with pytest.raises(
        InvalidRequest, match=r"^outputs: 'h' is BF16, which has no form in JSON; ask for it as binary data"
    ):
        decode_request(json.dumps({"inputs": one()[:1], **asked}).encode(), HALF)


@pytest.mark.parametrize(
    ("asked", "binary"),
    [
        ({"outputs": [{"name": "f"}]}, set()),
        ({"outputs": [{"name": "f"}, {"name": "h", "parameters": {"binary_data": True}}]}, {"h"}),
        ({"parameters": {"binary_data_output": True}}, {"f", "h"}),
    ],
)
def test_bf16_is_answered_as_binary_data_beside_json(asked, binary):
    decoded = decode_request(json.dumps({"inputs": one()[:1], **asked}).encode(), HALF)
    assert decoded.binary == binary
    values = {"f": np.float32(0.5).reshape(()), "h": np.array(0x3FC0, np.uint16)}
    response = InferenceResponse("m", "1", "", tuple((spec, values[spec.name]) for spec in HALF.outputs))
    if "h" in binary:
        assert encode_response(response, decoded.binary).body[-1] == b"\xc0\x3f"


def test_a_response_carries_name_version_id_and_flat_data():
    response = InferenceResponse("m", "3", "r-1", ((SUM, np.array([[1.5, np.nan]], np.float32)),))
    assert json.loads(encode_response(response).body[0]) == {
        "model_name": "m",
        "model_version": "3",
        "id": "r-1",
        "outputs": [{"name": "sum", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]}],
    }
    assert "id" not in json.loads(encode_response(InferenceResponse("m", "3", "", ())).body[0])


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.1, 2], np.float16),
        np.array([[1, 2], [3, 4]], np.uint8).T,
        np.array(["a", "ü"], object),
        np.array([True]),
        np.array(5, np.int32),
        np.zeros((0, 3), np.float64),
    ],
    ids=lambda array: str(array.dtype),
)
def test_outputs_of_any_type_and_layout_are_written_in_row_order(array):
    spec = TensorSpec("y", "any", array.shape)
    written = json.loads(encode_response(InferenceResponse("m", "1", "", ((spec, array),))).body[0])[
        "outputs"
    ][0]
    assert written["shape"] == list(array.shape)
    assert np.array(written["data"], array.dtype).tolist() == array.reshape(-1).tolist()


def test_metadata_has_shapes_with_minus_one_for_open_axes():
    assert json.loads(encode_metadata(MODEL)) == {
        "name": "m",
        "versions": ["3"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "b", "datatype": "INT64", "shape": [2]},
        ],
        "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "difference", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }
