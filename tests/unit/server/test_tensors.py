"""JSON ↔ numpy: what is taken, what is refused and by which name."""

import numpy as np
import pytest

from inference_server.errors import InvalidRequest
from inference_server.tensors import (
    NUMPY_TYPES,
    TensorSpec,
    bf16_exactly,
    check_shape,
    decode_data,
    encode_data,
    numbers,
)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("UINT16", [0, 65535]),
        ("UINT32", [0, 2**32 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("INT8", [-128, 127]),
        ("INT16", [-(2**15), 2**15 - 1]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("FP16", [0.5, -65504]),
        ("FP32", [0.1, 3.4028234663852886e38]),
        ("FP64", [0.1, 1.7976931348623157e308]),
        ("FP32", [3.4028235677973362e38, 1e-46]),  # what rounds to the largest, and to 0
        ("FP32", [2**60 + 1, -(2**63)]),
        ("BYTES", ["", "naïve\0text"]),
    ],
)
def test_every_datatype_holds_its_extremes(datatype, values):
    array = decode_data(values, (2,), datatype, "inputs[0]")
    assert array.dtype == NUMPY_TYPES[datatype]
    assert array.tolist() == np.array(values, NUMPY_TYPES[datatype]).tolist()
    assert list(encode_data(array)) == array.tolist()
    nested = decode_data([[value] for value in values], (2, 1), datatype, "inputs[0]")  # goes another way
    assert nested.dtype == array.dtype
    assert nested.tolist() == array.reshape(2, 1).tolist()


def test_all_datatypes_of_the_protocol_are_there():
    assert set(NUMPY_TYPES) == {
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
        "FP16", "FP32", "FP64", "BF16", "BYTES",
    }  # fmt: skip


def test_bf16_is_the_upper_half_of_fp32():
    floats = np.array([[1.5, -0.0, 2.0**127], [np.inf, -np.inf, 2.0**-133]], np.float32)
    bits = bf16_exactly(floats, "x")
    assert bits.tolist() == [[0x3FC0, 0x8000, 0x7F00], [0x7F80, 0xFF80, 1]]
    assert numbers(bits, "BF16").tobytes() == floats.tobytes()
    assert numbers(bits, "UINT16") is bits


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1.5, 0.1], np.float32), "x: expected numbers that BF16 has"),
        (np.array([1.5]), "x: expected FP32 for BF16, found FP64"),
        (np.array([1], np.uint16), "x: expected FP32 for BF16, found UINT16"),
    ],
)
def test_what_is_no_bf16_in_a_file_is_refused(array, message):
    with pytest.raises(InvalidRequest, match=message):
        bf16_exactly(array, "x")


@pytest.mark.parametrize("data", [[1.5, 2], [[1.5], [2]], []])
def test_bf16_is_refused_in_json(data):
    with pytest.raises(
        InvalidRequest, match=r"^inputs\[0\]\.data: BF16 has no form in JSON; send the tensor as binary"
    ):
        decode_data(data, (2,), "BF16", "inputs[0]")


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([1, 2, 3, 4, 5, 6], (2, 3)),
        ([[1, 2, 3], [4, 5, 6]], (2, 3)),
        ([[[1], [2], [3]], [[4], [5], [6]]], (2, 3, 1)),
        ([], (0, 3)),
        ([[], []], (2, 0)),
        ([7], ()),
    ],
)
def test_data_may_be_flat_or_nested_as_the_shape(data, shape):
    array = decode_data(data, shape, "INT64", "inputs[0]")
    assert array.shape == shape
    assert array.reshape(-1).tolist() == [1, 2, 3, 4, 5, 6][: array.size] or array.tolist() == 7


@pytest.mark.parametrize(
    ("data", "shape", "datatype", "message"),
    [
        (None, (1,), "FP32", "inputs[0].data: expected a list of values, found nothing"),
        ({"a": 1}, (1,), "FP32", "inputs[0].data: expected a list of values, found an object"),
        ([1], (2,), "FP32", "inputs[0].data: expected 2 values for shape [2], found 1"),
        ([1, 2], (2**62, 2**62), "FP32", "found 2"),
        ([], (2**63 - 1,), "UINT8", "found 0"),
        ([None], (1,), "FP32", "inputs[0].data[0]: expected a number for FP32, found nothing"),
        (["1"], (1,), "FP32", "inputs[0].data[0]: expected a number for FP32, found a string"),
        ([1.0, True], (2,), "FP32", "inputs[0].data[1]: expected a number for FP32, found True"),
        ([1, 1.5], (2,), "INT32", "inputs[0].data[1]: expected a whole number for INT32, found 1.5"),
        ([1.8446744073709552e19], (1,), "UINT64", "inputs[0].data[0]: expected a whole number"),
        ([True], (1,), "UINT8", "inputs[0].data[0]: expected a whole number for UINT8, found True"),
        ([1], (1,), "BOOL", "inputs[0].data[0]: expected true or false for BOOL, found 1"),
        ([1], (1,), "BYTES", "inputs[0].data[0]: expected a string for BYTES, found 1"),
        ([0, 256], (2,), "UINT8", "inputs[0].data[1]: expected a value from 0 to 255 for UINT8, found 256"),
        ([-1], (1,), "UINT64", "inputs[0].data[0]: expected a value from 0 to 18446744073709551615"),
        ([2**63], (1,), "INT64", "inputs[0].data[0]: expected a value from -9223372036854775808"),
        ([0, 1e39], (2,), "FP32", "inputs[0].data[1]: expected a value from -3.4028234663852886e+38"),
        (
            [3.4028235677973366e38],
            (1,),
            "FP32",
            "expected a value from",
        ),  # halfway to what would be next: rounds up
        ([70000], (1,), "FP16", "inputs[0].data[0]: expected a value from -65504.0 to 65504.0"),
        ([65520.0 - 1e-9, 65520.0], (2,), "FP16", "inputs[0].data"),
        ([[1], 2], (2, 1), "FP32", "inputs[0].data: expected either values or lists at depth 1, found both"),
        ([[1, 2], [3]], (2, 2), "FP32", "nested as shape [2, 2] says; level 1 differs"),
        ([[1, 2]], (2, 1), "FP32", "nested as shape [2, 1] says; level 1 differs"),
        ([[1, 2]], (2,), "FP32", "expected at most 1 levels of lists"),
        ([[1, 2]], (1, 2, 1), "FP32", "expected a flat list or 3 levels of lists, found 2"),
        ([[1]], (), "FP32", "expected at most 0 levels of lists"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(data, shape, datatype, message):
    with pytest.raises(InvalidRequest) as refusal:
        decode_data(data, shape, datatype, "inputs[0]")
    assert message in str(refusal.value)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "inputs[0].shape: expected a list of sizes, found nothing"),
        ("1,4", "inputs[0].shape: expected a list of sizes, found a string"),
        ([1], "inputs[0].shape: expected 2 sizes [-1, 4] (-1: any), found 1"),
        ([1, 5], "inputs[0].shape[1]: expected 4, found 5"),
        ([-1, 4], "inputs[0].shape[0]: expected a whole number from 0 to 2^63-1, found -1"),
        (
            [2**63, 4],
            "inputs[0].shape[0]: expected a whole number from 0 to 2^63-1, found 9223372036854775808",
        ),
        ([1.0, 4], "inputs[0].shape[0]: expected a whole number from 0 to 2^63-1, found 1.0"),
        ([True, 4], "inputs[0].shape[0]: expected a whole number from 0 to 2^63-1, found True"),
        ([[1], 4], "inputs[0].shape[0]: expected a whole number from 0 to 2^63-1, found a list"),
        ([1e300, 4], "inputs[0].shape[0]: expected a whole number"),
        ([1] * 33, "inputs[0].shape: expected at most 32 sizes, found 33"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_by_its_axis(shape, message):
    with pytest.raises(InvalidRequest) as refusal:
        check_shape(shape, TensorSpec("x", "FP32", (-1, 4)), "inputs[0]")
    assert str(refusal.value).startswith(message)


def test_an_open_axis_takes_any_size():
    assert check_shape([7, 4], TensorSpec("x", "FP32", (-1, 4)), "inputs[0]") == (7, 4)
    assert check_shape([0, 4], TensorSpec("x", "FP32", (-1, 4)), "inputs[0]") == (0, 4)


def test_a_message_never_carries_a_payload():
    with pytest.raises(InvalidRequest) as refusal:
        decode_data(["s" * 100_000], (1,), "FP32", "inputs[0]")
    assert len(str(refusal.value)) < 200
