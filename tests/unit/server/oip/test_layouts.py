"""What is remembered of requests makes the same of them as parsing does."""

import json

import numpy as np
import pytest

from inference_server.errors import InvalidRequest
from inference_server.messages import ModelMetadata
from inference_server.oip.json import decode_request
from inference_server.oip.layouts import Layouts
from inference_server.tensors import TensorSpec

A, B, C = TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,)), TensorSpec("c", "BOOL", (-1,))
Y = TensorSpec("y", "FP32", (-1,))
TWO, FLAGS = ModelMetadata("m", "1", (A, B), (Y,)), ModelMetadata("f", "1", (C,), (Y,))


def entry(spec, shape, **parameters):
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape, "parameters": parameters}


def head(*inputs, **members):
    return json.dumps({"inputs": inputs, **members}).encode()


HEAD = head(
    entry(B, [1], binary_data_size=8),
    entry(A, [1, 2], binary_data_size=8),
    parameters={"timeout": 5_000_000, "binary_data_output": True},
)


def body(number):
    return np.array([number], np.int64).tobytes() + np.array([number, 0.5], np.float32).tobytes()


class Counting(Layouts):
    """Layouts that tell whether they were of use."""

    found = 0

    def find(self, text, binary, model):
        result = super().find(text, binary, model)
        self.found += result is not None
        return result

    def fill(self, body, model):
        result = super().fill(body, model)
        self.found += result is not None
        return result


def decoded(text, tail, model=TWO, layouts=None, padding=0):
    room = bytearray(padding) + text + tail
    return decode_request(memoryview(room)[padding:], model, len(text), layouts)


def plain(decoded):
    request = decoded.request
    arrays = {name: (str(array.dtype), array.tolist()) for name, array in request.inputs.items()}
    return arrays, request.outputs, request.id, request.timeout, decoded.binary


@pytest.mark.parametrize("padding", range(8))
def test_the_second_request_is_made_without_parsing_and_is_the_same(padding):
    layouts = Counting()
    for number in range(3):
        found = decoded(HEAD, body(number), layouts=layouts, padding=padding)
        assert plain(found) == plain(decoded(HEAD, body(number)))
        assert all(array.flags.aligned for array in found.request.inputs.values())
    assert layouts.found == 2


def test_a_layout_counts_for_the_model_and_size_it_was_made_with():
    layouts = Counting()
    decoded(HEAD, body(1), layouts=layouts)
    again = ModelMetadata("m", "1", (A, B), (Y,))  # the same model loaded anew
    decoded(HEAD, body(2), again, layouts)
    for tail in (body(3)[:-1], body(3) + b"x", b""):
        with pytest.raises(InvalidRequest):
            decoded(HEAD, tail, again, layouts)
    with pytest.raises(InvalidRequest, match="shape"):
        decoded(HEAD, body(4), ModelMetadata("m", "1", (TensorSpec("a", "FP32", (-1, 3)), B), (Y,)), layouts)
    assert layouts.found == 0


@pytest.mark.parametrize(
    ("text", "tail", "model"),
    [
        (head(entry(C, [2], binary_data_size=2)), b"\0\1", FLAGS),
        (head(entry(B, [0], binary_data_size=0), entry(A, [1, 2], binary_data_size=8)), body(1)[8:], TWO),
        (head(entry(B, [1], binary_data_size=8), {**entry(A, [1, 2]), "data": [1, 2]}), body(1)[:8], TWO),
        (head(*json.loads(HEAD)["inputs"], id="1"), body(1), TWO),
        (HEAD[:-1] + b" " * 5000 + b"}", body(1), TWO),
    ],
    ids=["booleans", "empty", "in the JSON", "with an id", "long"],
)
def test_what_is_not_kept(text, tail, model):
    layouts = Counting()
    for _ in range(2):
        decoded(text, tail, model, layouts)
    assert layouts.found == 0


def test_there_are_only_so_many():
    layouts = Counting()
    for number in range(1000):
        decoded(head(*json.loads(HEAD)["inputs"], parameters={"timeout": number}), body(1), layouts=layouts)
        assert len(layouts._layouts) <= 64


X = TensorSpec("x", "FP32", (-1, 2))
ONE = ModelMetadata("o", "1", (X,), (Y,))


def in_json(data, shape=(1, 2), indent=None, **members):
    tensor = {"name": "x", "shape": list(shape), "data": data, "datatype": "FP32"}
    return json.dumps({"inputs": [tensor], **members}, indent=indent).encode()


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("nested", [False, True])
def test_a_request_in_json_is_made_of_its_values(indent, nested):
    layouts = Counting()
    for first in (1, 2.5, -3e-7):
        data = [[first, 0]] if nested else [first, 0]
        body = in_json(data, indent=indent, parameters={"timeout": 5_000_000})
        assert plain(decode_request(body, ONE, None, layouts)) == plain(decode_request(body, ONE))
    assert layouts.found == 2


@pytest.mark.parametrize(
    "wrong", [[1], [1, 2, 3], [1, "2"], [1, True], [1, None], [[1], [2]], [[1, 2], [3, 4]], [1, 1e39], []]
)
def test_wrong_values_are_refused_in_the_same_words(wrong):
    layouts = Counting()
    decode_request(in_json([1, 2]), ONE, None, layouts)
    with pytest.raises(InvalidRequest) as parsed:
        decode_request(in_json(wrong), ONE)
    with pytest.raises(InvalidRequest) as filled:
        decode_request(in_json(wrong), ONE, None, layouts)
    assert str(filled.value) == str(parsed.value)


@pytest.mark.parametrize(
    "body",
    [
        in_json([1, 2], id="1"),
        in_json([1, 2], parameters={"data": 5}),
        in_json([1, 2], parameters={"\\": "\\"}),
        in_json([1, 2], parameters={"binary_data_output": True}),
        in_json([1, 2], parameters={"long": " " * 5000}),
    ],
    ids=["with an id", "data twice", "escapes", "binary answers", "long"],
)
def test_what_is_not_kept_of_json(body):
    layouts = Counting()
    for _ in range(2):
        decode_request(body, ONE, None, layouts)
    assert layouts.found == 0


def test_a_form_counts_for_the_model_it_was_made_with():
    layouts = Counting()
    decode_request(in_json([1, 2]), ONE, None, layouts)
    other = ModelMetadata("o", "2", (TensorSpec("x", "FP32", (2, 1)),), (Y,))
    with pytest.raises(InvalidRequest, match="shape"):
        decode_request(in_json([1, 2]), other, None, layouts)
    assert layouts.found == 0


def test_there_are_only_so_many_forms():
    layouts = Counting()
    for rows in range(200):
        decode_request(in_json([0] * 2 * rows, (rows, 2)), ONE, None, layouts)
        assert len(layouts._forms) <= 64
