"""Bodies are what the server's own codec reads, in JSON and in binary, for each datatype."""

import json
import struct

import numpy as np
import pytest

from edgemodel.errors import Stalled
from edgemodel.loadtest import inputs
from edgemodel.loadtest.body import Tensor, as_binary, as_json, pack, read
from edgemodel.loadtest.metadata import DATATYPES, Input

NUMPY = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BOOL": "?"} | {
    f"{kind}INT{bits}".lstrip("S"): f"<{'u' if kind == 'U' else 'i'}{bits // 8}"
    for kind in ("U", "S")
    for bits in (8, 16, 32, 64)
}


def values(datatype):
    if datatype == "BOOL":
        return [True, False, True]
    return [0.5, 1.25, 2.0] if datatype.startswith("FP") else [0, 1, 100]


@pytest.mark.parametrize("datatype", sorted(NUMPY))
def test_binary_is_what_numpy_reads(datatype):
    raw = pack(Tensor("x", datatype, (3,), values(datatype)))
    assert np.frombuffer(raw, NUMPY[datatype]).tolist() == values(datatype)


def test_bf16_is_the_upper_half_of_fp32():
    raw = pack(Tensor("x", "BF16", (2,), [1.5, -2.0]))
    assert raw == struct.pack("<f", 1.5)[2:] + struct.pack("<f", -2.0)[2:]


def test_strings_have_their_length_before_them():
    assert pack(Tensor("x", "BYTES", (2,), ["é", ""])) == b"\x02\0\0\0\xc3\xa9\0\0\0\0"


def test_a_json_body_names_type_shape_and_data():
    body = as_json([Tensor("x", "INT8", (1, 2), [1, 2])])
    assert json.loads(body.content) == {
        "inputs": [{"name": "x", "datatype": "INT8", "shape": [1, 2], "data": [1, 2]}]
    }
    assert dict(body.headers) == {"Content-Type": "application/json"}


def test_a_binary_body_says_where_its_json_ends_and_how_long_each_tensor_is():
    tensors = [Tensor("a", "INT8", (2,), [1, 2]), Tensor("b", "FP32", (1,), [0.5])]
    body = as_binary(tensors)
    length = int(dict(body.headers)["Inference-Header-Content-Length"])
    document = json.loads(body.content[:length])
    assert [one["parameters"]["binary_data_size"] for one in document["inputs"]] == [2, 4]
    assert document["parameters"] == {"binary_data_output": True}
    assert all("data" not in one for one in document["inputs"])
    assert body.content[length:] == b"\1\2" + struct.pack("<f", 0.5)


def test_bf16_has_no_json():
    with pytest.raises(Stalled, match="use --binary"):
        as_json([Tensor("x", "BF16", (1,), [1.0])])


@pytest.mark.parametrize(
    ("datatype", "value"), [("UINT8", 256), ("INT32", "1"), ("FP32", "a"), ("FP16", 1e9)]
)
def test_a_value_that_does_not_fit_is_named(datatype, value):
    with pytest.raises(Stalled, match=f"input 'x': the data is no {datatype}"):
        pack(Tensor("x", datatype, (1,), [value]))


def test_a_file_holds_one_request_or_several():
    one = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}]}
    wanted = [Tensor("x", "FP32", (2, 2), [1, 2, 3, 4])]
    assert read(json.dumps(one).encode(), "f") == [wanted]
    assert read(json.dumps([one, one]).encode(), "f") == [wanted, wanted]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"3",
        b'{"inputs":[]}',
        b'{"inputs":[{"name":"x","datatype":"FP8","shape":[1],"data":[1]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[null]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":1,"data":[1]}]}',
        b"[" * 100_000,
    ],
)
def test_another_file_is_refused_by_its_name(content):
    with pytest.raises(Stalled, match=r"request\.json: expected"):
        read(content, "request.json")


@pytest.mark.parametrize("make", [inputs.zeros, lambda asked: inputs.drawn(asked, 1)])
def test_values_are_made_for_each_datatype(make):
    asked = [Input(datatype, datatype, (2, 3)) for datatype in sorted(DATATYPES)]
    made = make(asked)
    assert [len(tensor.data) for tensor in made] == [6] * len(DATATYPES)
    as_binary(made)
    as_json([tensor for tensor in made if tensor.datatype != "BF16"])


def test_made_up_numbers_suit_any_model_and_are_the_same_each_time():
    asked = [Input("token", "INT64", (500,)), Input("pixel", "FP32", (500,))]
    token, pixel = inputs.drawn(asked, 3)
    assert set(token.data) == {0, 1}
    assert all(0 <= value <= 1 for value in pixel.data)
    assert inputs.drawn(asked, 3) == [token, pixel]
    assert inputs.drawn(asked, 4) != [token, pixel]
