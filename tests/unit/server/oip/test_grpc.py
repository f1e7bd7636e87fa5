"""ModelInfer's messages: what is taken, what is given, and what is refused with which words."""

from dataclasses import replace

import numpy as np
import pytest

from inference_server.errors import InvalidRequest
from inference_server.messages import InferenceResponse, ModelMetadata
from inference_server.oip import grpc_documents as oip_grpc_documents
from inference_server.oip.grpc import Inference, split_raw
from inference_server.oip.grpc_heads import Heads
from inference_server.proto import inference_pb2 as pb
from inference_server.telemetry.statistics import ModelStatistics
from inference_server.tensors import NUMPY_TYPES, TensorSpec


def field(datatype):
    """Return the list that holds a datatype: integers of up to 32 bits share one."""
    kind, bits = NUMPY_TYPES[datatype].kind, 8 * NUMPY_TYPES[datatype].itemsize
    if kind == "f":
        return f"fp{bits}_contents"
    return {"b": "bool", "i": "int", "u": "uint"}[kind] + ("64" if bits == 64 else "") + "_contents"


def model(datatype="FP32", shape=(-1,)):
    return ModelMetadata(
        "m",
        "1",
        (TensorSpec("x", datatype, shape),),
        (TensorSpec("y", datatype, shape), TensorSpec("z", "FP32", ())),
    )


def message(datatype="FP32", shape=(2,), raw=None, name="x", **contents):
    request = pb.ModelInferRequest(model_name="m")
    entry = request.inputs.add(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(entry.contents, field).extend(values)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def opened(request):
    return Inference(memoryview(request.SerializeToString()))


def decoded(request, metadata=None):
    return opened(request).decode(metadata or model())


def answer(inference, *pairs):
    response = InferenceResponse("m", "1", "seven", pairs)
    reply = pb.ModelInferResponse.FromString(b"".join(inference.encode(response)))
    assert (reply.model_name, reply.model_version, reply.id) == ("m", "1", "seven")
    return reply


@pytest.mark.parametrize("datatype", sorted(set(NUMPY_TYPES) - {"BYTES"}))
def test_raw_numbers_go_and_come_back(datatype):
    array = np.array([[0, 1], [1, 0]], NUMPY_TYPES[datatype])
    metadata = model(datatype, (2, 2))
    inference = opened(message(datatype, (2, 2), array.tobytes()))
    request = inference.decode(metadata)
    assert request.inputs["x"].dtype == array.dtype
    assert np.array_equal(request.inputs["x"], array)
    reply = answer(inference, (metadata.outputs[0], request.inputs["x"]))
    assert reply.raw_output_contents == [array.tobytes()]
    assert (reply.outputs[0].datatype, list(reply.outputs[0].shape)) == (datatype, [2, 2])
    assert not reply.outputs[0].HasField("contents")


@pytest.mark.parametrize("datatype", sorted(set(NUMPY_TYPES) - {"BYTES", "FP16", "BF16"}))
def test_typed_numbers_go_and_come_back(datatype):
    metadata = model(datatype)
    inference = opened(message(datatype, **{field(datatype): [1, 0]}))
    request = inference.decode(metadata)
    assert np.array_equal(request.inputs["x"], np.array([1, 0], NUMPY_TYPES[datatype]))
    reply = answer(inference, (metadata.outputs[0], request.inputs["x"]))
    assert list(getattr(reply.outputs[0].contents, field(datatype))) == [1, 0]
    assert not reply.raw_output_contents


def test_strings_go_and_come_back():
    metadata = model("BYTES")
    raw = b"\x02\0\0\0\xc3\xa4\0\0\0\0"
    for request in (message("BYTES", raw=raw), message("BYTES", bytes_contents=["ä".encode(), b""])):
        inference = opened(request)
        array = inference.decode(metadata).inputs["x"]
        assert list(array) == ["ä", ""]
        reply = answer(inference, (metadata.outputs[0], array))
        if request.raw_input_contents:
            assert reply.raw_output_contents == [raw]
        else:
            assert list(reply.outputs[0].contents.bytes_contents) == ["ä".encode(), b""]


def test_an_answer_is_raw_when_its_type_has_no_list_or_the_client_says_so():
    half = (TensorSpec("y", "FP16", (1,)), np.ones(1, np.float16))
    single = (TensorSpec("z", "FP32", (1,)), np.ones(1, np.float32))
    inference = opened(message(shape=(1,), fp32_contents=[1]))
    inference.decode(model())
    assert len(answer(inference, half, single).raw_output_contents) == 2
    asked = message(shape=(1,), fp32_contents=[1])
    asked.parameters["binary_data_output"].bool_param = True
    inference = opened(asked)
    inference.decode(model())
    assert len(answer(inference, single).raw_output_contents) == 1
    asked = message(shape=(1,), raw=bytes(4))
    asked.parameters["binary_data_output"].bool_param = False
    inference = opened(asked)
    inference.decode(model())
    assert list(answer(inference, single).outputs[0].contents.fp32_contents) == [1]


def test_a_message_that_begins_as_one_before_says_the_same_with_other_values():
    heads, served = Heads(), model()
    first, second = np.array([1, 2], np.float32), np.array([3, 4], np.float32)
    for values in (first, second, first):
        request = message(raw=values.tobytes())
        request.id = "seven"
        request.outputs.add(name="z")
        inference = Inference(memoryview(request.SerializeToString()), heads)
        found = inference.decode(served)
        assert np.array_equal(found.inputs["x"], values)
        assert (inference.model, inference.version) == ("m", None)
        assert (found.id, found.outputs, found.timeout) == ("seven", ("z",), None)
    assert heads.find(memoryview(request.SerializeToString())) is not None
    # As long, and another id, shape or model: none of it is taken from the one before.
    request.id = "eight"
    other = Inference(memoryview(request.SerializeToString()), heads)
    assert other.decode(served).id == "eight"
    replaced = model(shape=(3,))
    with pytest.raises(InvalidRequest, match="expected 3, found 2"):
        Inference(memoryview(request.SerializeToString()), heads).decode(replaced)


def test_a_message_whose_values_are_not_last_is_parsed_each_time():
    heads = Heads()
    data = message(raw=bytes(8)).SerializeToString() + b"\x1a\x05seven"
    for _ in range(2):
        assert Inference(memoryview(data), heads).decode(model()).id == "seven"
    assert heads.find(memoryview(data)) is None


@pytest.mark.parametrize("wrong", [b"\x02\x00", b"\x00\x02"])
def test_values_are_checked_each_time(wrong):
    heads, served = Heads(), model("BOOL")
    good = message("BOOL", raw=b"\x01\x00").SerializeToString()
    Inference(memoryview(good), heads).decode(served)
    with pytest.raises(InvalidRequest, match="expected 0 or 1"):
        Inference(memoryview(good[:-2] + wrong), heads).decode(served)


def test_answers_of_other_shapes_are_described_anew():
    inference = opened(message(raw=bytes(8)))
    inference.decode(model())
    for count in (1, 3, 200, 3, 1):
        array = np.arange(count, dtype=np.float32)
        reply = answer(inference, (TensorSpec("y", "FP32", (-1,)), array))
        assert list(reply.outputs[0].shape) == [count]
        assert reply.raw_output_contents == [array.tobytes()]
    empty = answer(inference, (TensorSpec("y", "FP32", (-1, 2)), np.zeros((0, 2), np.float32)))
    assert (list(empty.outputs[0].shape), empty.raw_output_contents) == ([0, 2], [b""])


def test_what_else_a_request_says_is_understood():
    request = message(raw=bytes(8))
    request.id, request.model_version = "seven", "3"
    request.parameters["timeout"].int64_param = 1500
    request.parameters["of-another-server"].string_param = "x"
    request.outputs.add(name="z")
    inference = opened(request)
    found = inference.decode(model())
    assert (inference.model, inference.version) == ("m", "3")
    assert (found.id, found.timeout, found.outputs) == ("seven", 0.0015, ("z",))
    assert decoded(message(raw=bytes(8))).outputs == ("y", "z")
    assert opened(message()).version is None


def changed(change, **options):
    request = message(**({"raw": bytes(8)} | options))
    change(request)
    return request


REFUSED = [
    (message(raw=bytes(8), name="w"), "inputs[0].name: expected one of 'x', found 'w'"),
    (message("INT8", raw=bytes(8)), "inputs[0].datatype: expected 'FP32', found 'INT8'"),
    (message(shape=(1, 2), raw=bytes(8)), "inputs[0].shape: expected 1 sizes [-1] (-1: any), found 2"),
    (
        message(shape=(-1,), raw=bytes(8)),
        "inputs[0].shape[0]: expected a whole number from 0 to 2^63-1, found -1",
    ),
    (message(shape=(1,) * 33, raw=bytes(8)), "inputs[0].shape: expected at most 32 sizes, found 33"),
    (message(raw=bytes(7)), "raw_input_contents[0]: expected 8 bytes for shape [2] of FP32, found 7"),
    (message(shape=(2**62,), raw=bytes(8)), f"raw_input_contents[0]: expected {2**64} bytes"),
    (
        message(fp32_contents=[1]),
        "inputs[0].contents.fp32_contents: expected 2 values for shape [2], found 1",
    ),
    (message(), "inputs[0].contents.fp32_contents: expected 2 values for shape [2], found 0"),
    (
        message(fp64_contents=[1, 2]),
        "inputs[0].contents: expected fp32_contents for FP32, found fp64_contents",
    ),
    (
        message(raw=bytes(8), fp32_contents=[1, 2]),
        "inputs[0].contents: expected none beside raw_input_contents",
    ),
    (
        changed(lambda request: request.raw_input_contents.append(b"")),
        "raw_input_contents: expected one for each of 1 inputs, found 2",
    ),
    (pb.ModelInferRequest(), "inputs: expected also 'x'"),
    (
        changed(lambda request: request.inputs.add(name="x", datatype="FP32")),
        "inputs: expected 1 tensors ('x'), found 2",
    ),
    (
        changed(lambda request: request.outputs.add(name="w")),
        "outputs[0].name: expected one of 'y', 'z', found 'w'",
    ),
    (
        changed(lambda request: [request.outputs.add(name="y") for _ in range(2)]),
        "outputs[1].name: 'y' is given twice",
    ),
    (
        changed(lambda request: [request.outputs.add(name="y") for _ in range(3)]),
        "outputs: expected at most 2 tensors, found 3",
    ),
    (changed(lambda request: setattr(request, "id", "x" * 1025)), "id: expected at most 1024 characters"),
    (
        changed(lambda request: setattr(request.parameters["sequence_id"], "int64_param", 3)),
        "parameters.sequence_id: not supported",
    ),
    (
        changed(lambda request: setattr(request.parameters["timeout"], "string_param", "soon")),
        "parameters.timeout: expected a whole number of microseconds",
    ),
    (
        changed(
            lambda request: setattr(request.inputs[0].parameters["shared_memory_region"], "string_param", "r")
        ),
        "inputs[0].parameters.shared_memory_region: not supported",
    ),
    (
        changed(
            lambda request: setattr(
                request.outputs.add(name="y").parameters["classification"], "int64_param", 3
            )
        ),
        "outputs[0].parameters.classification: not supported",
    ),
]


@pytest.mark.parametrize(("request_", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_does_not_fit_is_refused_by_name(request_, words):
    with pytest.raises(InvalidRequest) as refused:
        decoded(request_)
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize(
    ("datatype", "request_", "words"),
    [
        (
            "INT8",
            message("INT8", int_contents=[1, 128]),
            "int_contents[1]: expected a value from -128 to 127",
        ),
        (
            "UINT8",
            message("UINT8", uint_contents=[256, 1]),
            "uint_contents[0]: expected a value from 0 to 255",
        ),
        ("FP16", message("FP16", fp32_contents=[1, 2]), "FP16 has no list of its own"),
        ("BF16", message("BF16", fp32_contents=[1, 2]), "inputs[0].contents: BF16 has no list of its own"),
        ("BYTES", message("BYTES", bytes_contents=[b"a", b"\xff"]), "bytes_contents[1]: expected UTF-8"),
        ("BYTES", message("BYTES", raw=b"\x01\0\0\0"), "raw_input_contents[0]: expected at least 8"),
        ("BYTES", message("BYTES", raw=b"\0\0\0\0\x01\0\0\0"), "raw_input_contents[0]: element 1"),
        ("BOOL", message("BOOL", raw=b"\x01\x02"), "element 1"),
    ],
)
def test_values_that_the_datatype_cannot_hold_are_refused(datatype, request_, words):
    with pytest.raises(InvalidRequest) as refused:
        decoded(request_, model(datatype))
    assert words in str(refused.value)


def test_large_tensors_are_found_where_they_lie():
    array = np.arange(50_000, dtype=np.float32)
    request = message(shape=(50_000,), raw=array.tobytes())
    request.id = "large"
    data = bytearray(request.SerializeToString())
    found = Inference(memoryview(data)).decode(model())
    assert found.id == "large"
    assert np.array_equal(found.inputs["x"], array)
    rest, (raw,) = split_raw(memoryview(data))
    assert (raw.obj is data, len(rest) < 100) == (True, True)


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x3a\x7fx",
        b"\x3b",
        b"\x09\0",
        b"\x80" * 20,
    ],
)
def test_damaged_messages_are_refused(data):
    for padded in (data, b"\x3a\x80\x80\x04" + bytes(65536) + data):
        with pytest.raises(InvalidRequest, match="expected a ModelInferRequest"):
            Inference(memoryview(padded))


def test_documents():
    metadata = ModelMetadata("m", "1", (TensorSpec("x", "BYTES", (-1, 2)),), (TensorSpec("y", "FP16", ()),))
    told = pb.ModelMetadataResponse.FromString(oip_grpc_documents.encode_metadata(metadata))
    assert (told.name, list(told.versions), told.platform) == ("m", ["1"], "onnxruntime_onnx")
    assert (told.inputs[0].datatype, list(told.inputs[0].shape)) == ("BYTES", [-1, 2])
    config = pb.ModelConfigResponse.FromString(oip_grpc_documents.encode_config(metadata)).config
    assert config.input[0].data_type == pb.DataType.TYPE_STRING
    assert config.output[0].data_type == pb.DataType.TYPE_FP16
    batched = replace(metadata, outputs=metadata.inputs, parameters={"batchable": True, "max_batch_size": 8})
    config = pb.ModelConfigResponse.FromString(oip_grpc_documents.encode_config(batched)).config
    assert (config.max_batch_size, list(config.input[0].dims), list(config.output[0].dims)) == (8, [2], [2])
    sums = ModelStatistics()
    sums.ran(4, 0.25)
    sums.failed(0.5, now=7.0)
    told = pb.ModelStatisticsResponse.FromString(oip_grpc_documents.encode_statistics([(metadata, sums)]))
    (statistics,) = told.model_stats
    assert (statistics.execution_count, statistics.last_inference) == (1, 7000)
    assert (statistics.inference_stats.fail.count, statistics.inference_stats.fail.ns) == (1, 500_000_000)
    assert (statistics.batch_stats[0].batch_size, statistics.batch_stats[0].compute_infer.ns) == (
        4,
        250_000_000,
    )
