"""Binary tensors: what is taken without a copy, what comes out, and what is refused by which name."""

import json

import numpy as np
import pytest

from inference_server.errors import InvalidRequest
from inference_server.messages import InferenceResponse, ModelMetadata
from inference_server.oip.binary import decode_raw, decode_whole, encode_raw
from inference_server.oip.json import decode_request, encode_response
from inference_server.tensors import NUMPY_TYPES, TensorSpec

NUMBERS = sorted(set(NUMPY_TYPES) - {"BYTES", "BOOL"})


def at(raw: bytes, offset: int) -> memoryview:
    """These bytes at an address with this remainder by 64."""
    room = np.empty(len(raw) + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    view = room.data[start : start + len(raw)]
    view[:] = raw
    return view


def shares(array, view) -> bool:
    return len(view) > 0 and np.shares_memory(array, np.frombuffer(view, np.uint8))


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_are_read_where_they_lie_and_copied_only_when_unaligned(datatype):
    numpy_type = NUMPY_TYPES[datatype]
    values = np.arange(6).astype(numpy_type).reshape(2, 3)
    for offset in (0, 8, 1):
        view = at(values.tobytes(), offset)
        array = decode_raw(view, (2, 3), datatype, "inputs[0]")
        assert (array.dtype, array.tolist()) == (numpy_type, values.tolist())
        assert array.flags.aligned
        assert shares(array, view) == (offset % numpy_type.alignment == 0)


def test_nan_and_infinity_pass_as_they_are():
    raw = b"\x01\x00\xc0\x7f\x00\x00\x80\xff"  # a NaN with a payload, and minus infinity
    assert decode_raw(at(raw, 0), (2,), "FP32", "x").tobytes() == raw


@pytest.mark.parametrize(
    ("raw", "shape", "values"),
    [
        (b"", (0,), []),
        (b"\0\0\0\0", (1, 1), [[""]]),
        (b"\x02\0\0\0\xc3\xbc\x03\0\0\0a\0b", (2,), ["ü", "a\0b"]),
    ],
)
def test_strings_have_their_length_before_them(raw, shape, values):
    array = decode_raw(memoryview(raw), shape, "BYTES", "x")
    assert (array.shape, array.tolist()) == (shape, values)
    assert encode_raw(array) == raw


@pytest.mark.parametrize(
    ("raw", "shape", "datatype", "message"),
    [
        (b"abc", (1,), "FP32", "x.parameters.binary_data_size: expected 4 for shape [1] of FP32, found 3"),
        (b"abcde", (1,), "FP32", "expected 4 for shape [1] of FP32, found 5"),
        (b"", (2**62, 2**62), "FP64", "of FP64, found 0"),
        (b"\0\1\2", (3,), "BOOL", "x: element 2 of its binary data: expected 0 or 1 for BOOL, found 2"),
        (b"", (1,), "BYTES", "expected at least 4 for 1 elements of BYTES, found 0"),
        (b"\0" * 8, (2**62,), "BYTES", "expected at least 18446744073709551616 for"),
        (
            b"\x05\0\0\0abcd",
            (1,),
            "BYTES",
            "x: element 0 of its binary data: expected a length of four bytes",
        ),
        (
            b"\x02\0\0\0abc\0\0",
            (2,),
            "BYTES",
            "x: element 1 of its binary data: expected a length of four bytes",
        ),
        (
            b"\xff\xff\xff\xff",
            (1,),
            "BYTES",
            "x: element 0 of its binary data: expected a length of four bytes",
        ),
        (b"\x01\0\0\0a\0", (1,), "BYTES", "expected 5 for 1 elements of BYTES, found 6"),
        (
            b"\0\0\0\0\x03\0\0\0ab\xff",
            (2,),
            "BYTES",
            "x: element 1 of its binary data: expected UTF-8, as strings of ONNX are, found byte 0xff at 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(raw, shape, datatype, message):
    with pytest.raises(InvalidRequest) as refusal:
        decode_raw(memoryview(raw), shape, datatype, "x")
    assert message in str(refusal.value)


@pytest.mark.parametrize("datatype", [*NUMBERS, "BOOL"])
def test_outputs_are_written_from_where_they_lie(datatype):
    array = np.ones((2, 5000), NUMPY_TYPES[datatype])
    raw = encode_raw(array)
    assert bytes(raw) == array.tobytes()
    assert shares(array, raw)
    array = array[:, :3]
    assert bytes(encode_raw(array)) == array.tobytes()  # few: copied
    assert (
        bytes(encode_raw(array[:, ::2])) == array[:, ::2].tobytes()
    )  # of another layout: row order all the same
    assert bytes(encode_raw(array[:0])) == b""
    assert bytes(encode_raw(array[0, 0].reshape(()))) == array[0, 0].tobytes()


def test_a_big_endian_output_is_written_little_endian():
    assert bytes(encode_raw(np.array([1], ">i4"))) == b"\1\0\0\0"


@pytest.mark.parametrize(
    ("shape", "datatype", "raw", "expected"),
    [
        ((-1, 2), "FP32", np.arange(6, dtype=np.float32).tobytes(), [[0, 1], [2, 3], [4, 5]]),
        ((2,), "UINT8", b"\1\2", [1, 2]),
        ((-1,), "UINT8", b"", []),
        ((-1, 1), "BYTES", "grün".encode(), [["grün"]]),
    ],
)
def test_a_raw_body_is_the_one_input(shape, datatype, raw, expected):
    assert decode_whole(memoryview(raw), TensorSpec("x", datatype, shape)).tolist() == expected


@pytest.mark.parametrize(
    ("shape", "datatype", "raw", "message"),
    [
        ((-1, -1), "FP32", b"\0" * 4, "input 'x': the model leaves more than one size"),
        ((-1, 0), "FP32", b"", "input 'x': the model leaves more than one size"),
        ((-1, 2), "FP32", b"\0" * 9, "body: expected a multiple of 8 bytes for input 'x', found 9"),
        ((3,), "FP32", b"\0" * 8, "body: expected 12 bytes for input 'x', found 8"),
        ((0,), "FP32", b"\0", "body: expected 0 bytes for input 'x', found 1"),
        ((-1, 2), "BYTES", b"a", "input 'x': a raw body is one element"),
        ((1,), "BYTES", b"\xff", "input 'x': element 0"),
    ],
)
def test_a_raw_body_that_does_not_fit_is_refused(shape, datatype, raw, message):
    with pytest.raises(InvalidRequest) as refusal:
        decode_whole(memoryview(raw), TensorSpec("x", datatype, shape))
    assert message in str(refusal.value)


def test_a_raw_body_is_capped_as_any_other():
    spec = TensorSpec("x", "UINT8", (-1, 2), most_elements=6, most_rows=3)
    assert decode_whole(memoryview(b"\0" * 6), spec).shape == (3, 2)
    with pytest.raises(InvalidRequest, match=r"input 'x'.shape\[0\]: expected at most 3 rows"):
        decode_whole(memoryview(b"\0" * 8), spec)


# -- with the JSON before it --------------------------------------------------------------------------------------------

A, B, C = TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "BYTES", (-1,)), TensorSpec("c", "INT64", (-1,))
MODEL = ModelMetadata("m", "1", (A, B, C), (A, B))


def given(name, datatype, size, **members):
    return {"name": name, "datatype": datatype, "shape": [2], **binary(size), **members}


def binary(size):
    return {} if size is None else {"parameters": {"binary_data_size": size}}


def request(*inputs, **members):
    return json.dumps({"inputs": inputs, **members}).encode()


NUMBERS_8 = np.array([1, 2], np.float32).tobytes()
STRINGS_10 = b"\x01\0\0\0p\x01\0\0\0q"
WHOLE = request(given("b", "BYTES", 10), given("c", "INT64", None, data=[7, 8]), given("a", "FP32", 8))


def decode(head, tail=STRINGS_10 + NUMBERS_8, length=None):
    return decode_request(head + tail, MODEL, len(head) if length is None else length)


def test_binary_data_follows_in_the_order_of_the_inputs_and_mixes_with_json():
    inputs = decode(WHOLE).request.inputs
    assert {name: array.tolist() for name, array in inputs.items()} == {
        "a": [1, 2],
        "b": ["p", "q"],
        "c": [7, 8],
    }


def test_outputs_are_binary_as_each_or_all_are_asked_for():
    def asked(**members):
        return decode(request(*json.loads(WHOLE)["inputs"], **members)).binary

    def one(name, **parameters):
        return {"name": name, "parameters": parameters}

    everything = {"binary_data_output": True}
    assert asked() == set()
    assert asked(parameters=everything) == {"a", "b"}
    assert asked(outputs=[one("a", binary_data=True), one("b")]) == {"a"}
    assert asked(outputs=[one("a", binary_data=False), one("b")], parameters=everything) == {"b"}
    assert asked(outputs=[one("a", binary_data=True)], parameters={"binary_data_output": False}) == {"a"}


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (request(given("a", "FP32", -1)), "inputs[0].parameters.binary_data_size: expected a whole number"),
        (request(given("a", "FP32", 8.5)), "inputs[0].parameters.binary_data_size: expected a whole number"),
        (request(given("a", "FP32", True)), "inputs[0].parameters.binary_data_size: expected a whole number"),
        (request(given("a", "FP32", "8")), "inputs[0].parameters.binary_data_size: expected a whole number"),
        (request(given("a", "FP32", 2**70)), "inputs[0].parameters.binary_data_size: expected at most the 18"),
        (request(given("a", "FP32", 19)), "expected at most the 18 bytes that are left, found 19"),
        (request(given("b", "BYTES", 10), given("a", "FP32", 9)), "binary_data_size: expected at most the 8"),
        (request(given("a", "FP32", 7)), "inputs[0].parameters.binary_data_size: expected 8 for shape [2]"),
        (request(given("a", "FP32", 8, data=[1, 2])), "inputs[0]: expected either data or parameters.binary_data_size"),
        (WHOLE.replace(b'"data": [7, 8]', b'"data": [[7]]'), "inputs[1].data"),
        (WHOLE.replace(b": 10", b": 10, \"shared_memory_region\": \"r\""), "inputs[0].parameters.shared_memory_region: not"),
        (request(*json.loads(WHOLE)["inputs"], parameters={"binary_data_output": 1}), "binary_data_output: expected"),
        (request(*json.loads(WHOLE)["inputs"], parameters={"timeout": 0.5}), "parameters.timeout: expected a whole number"),
    ],
)  # fmt: skip
def test_a_lying_head_is_refused_by_its_field(head, message):
    with pytest.raises(InvalidRequest) as refusal:
        decode(head)
    assert message in str(refusal.value)


def test_bytes_that_no_input_claims_are_refused():
    with pytest.raises(
        InvalidRequest, match="body: expected 18 bytes of binary data after the JSON, as the inputs"
    ):
        decode(WHOLE, STRINGS_10 + NUMBERS_8 + b"\0")


@pytest.mark.parametrize(
    ("length", "message"), [(10**14, "expected at most the"), (7, "body: expected JSON")]
)
def test_a_wrong_length_of_the_json_is_refused(length, message):
    with pytest.raises(InvalidRequest, match=message):
        decode(WHOLE, length=length)


def test_timeout_is_microseconds_and_0_is_none():
    def timeout(value):
        return decode(request(*json.loads(WHOLE)["inputs"], parameters={"timeout": value})).request.timeout

    assert (timeout(1500), timeout(0), timeout(None)) == (0.0015, None, None)


def test_a_response_has_the_binary_data_of_each_output_after_its_json():
    a, b = np.array([[1.5, np.nan]], np.float32), np.array(["x", "yz"], object)
    response = InferenceResponse("m", "1", "id", ((A, a), (B, b), (C, np.array([3]))))
    encoded = encode_response(response, frozenset({"a", "b"}))
    head, *parts = encoded.body
    outputs = json.loads(head)["outputs"]
    assert encoded.header_length == len(head)
    assert [output.get("parameters") for output in outputs] == [
        {"binary_data_size": 8},
        {"binary_data_size": 11},
        None,
    ]
    assert [output.get("data") for output in outputs] == [None, None, [3]]
    assert b"".join(parts) == a.tobytes() + b"\x01\0\0\0x\x02\0\0\0yz"
    assert encode_response(response).header_length is None


def test_a_response_that_is_all_binary_says_what_any_other_does():
    def encoded(a, b, request_id=""):
        response = InferenceResponse(
            "m", "1", request_id, ((A, np.array(a, np.float32)), (B, np.array(b, object)))
        )
        return encode_response(response, frozenset({"a", "b"}))

    parsed = [json.loads(encoded([[1.5, 2]], ["x"], name).body[0]) for name in ("", "", "id")]
    assert parsed[0] == parsed[1] == {name: value for name, value in parsed[2].items() if name != "id"}
    for a, b in (([[1.5, 2]], ["yz"]), ([[1.5, 2]], ["y"]), ([[1], [2]], ["y"]), ([1, 2], ["z"])):
        head, *raw = encoded(a, b).body
        outputs = json.loads(head)["outputs"]
        assert [output["shape"] for output in outputs] == [list(np.shape(a)), [1]]
        assert [output["parameters"]["binary_data_size"] for output in outputs] == [len(part) for part in raw]
        assert raw[0] == np.array(a, np.float32).tobytes()
