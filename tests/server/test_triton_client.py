"""Unmodified `tritonclient[http]` against the real process: what it sends is taken, what it gets it understands."""

import numpy as np
import pytest
from onnx import helper
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from tests.server.onnx_models import ONNX_TYPES, build, save, sum_and_difference, tensor
from tests.server.process import running

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

VALUES = {
    "BOOL": np.array([[True, False, True, True]]),
    "BYTES": np.array([["", "eins", "grün", "a\0b"]], object),
    "FP16": np.array([[0.5, -65504, np.inf, np.nan]], np.float16),
    "FP32": np.array([[0.1, -0.0, np.inf, np.nan]], np.float32),
    "FP64": np.array([[0.1, -1e300, np.inf, np.nan]], np.float64),
}


def values(datatype):
    if datatype in VALUES:
        return VALUES[datatype]
    limits = np.iinfo(np.dtype(datatype.lower()))
    return np.array([[limits.min, 0, 1, limits.max]], limits.dtype)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model = save(sum_and_difference(), tmp_path_factory.mktemp("model") / "pair.onnx")
    with running(model=model) as server:
        server.event("ready")
        yield server


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def pair(binary=True, a=((1, 2), (3, 4)), b=((1, 1), (1, 1))):
    inputs = []
    for name, rows in (("a", a), ("b", b)):
        array = np.array(rows, np.float32)
        given = triton.InferInput(name, list(array.shape), "FP32")
        given.set_data_from_numpy(array, binary_data=binary if isinstance(binary, bool) else name in binary)
        inputs.append(given)
    return inputs


SUM, DIFFERENCE = [[2, 3], [4, 5]], [[0, 1], [2, 3]]


DATATYPES = [one for one in ONNX_TYPES if one != "BF16"]  # test_bf16


def every_datatype():
    """y = x for each datatype: inputs x_BOOL and so on."""
    nodes = [helper.make_node("Identity", [f"x_{one}"], [f"y_{one}"]) for one in DATATYPES]
    given, found = ([tensor(f"{side}_{one}", one, ("batch", "n")) for one in DATATYPES] for side in "xy")
    return build(nodes, given, found)


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    model = save(every_datatype(), tmp_path_factory.mktemp("model") / "every.onnx")
    with running(model=model) as server:
        server.event("ready")
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            yield client


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_comes_back_as_it_went(every, binary):
    sent = {datatype: values(datatype) for datatype in DATATYPES}
    if not binary:  # JSON has no infinity
        sent |= {name: array[:, :2] for name, array in sent.items() if name.startswith("FP")}
    inputs, outputs = [], []
    for datatype, array in sent.items():
        given = triton.InferInput(f"x_{datatype}", list(array.shape), datatype)
        inputs.append(given.set_data_from_numpy(array, binary_data=binary))
        outputs.append(triton.InferRequestedOutput(f"y_{datatype}", binary_data=binary))
    result = every.infer("every", inputs, outputs=outputs)
    for datatype, array in sent.items():
        found = result.as_numpy(f"y_{datatype}")
        if datatype == "BYTES" and binary:
            found = np.array([[item.decode() for item in found[0]]], object)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        assert result.get_output(f"y_{datatype}")["datatype"] == datatype


@pytest.mark.parametrize("binary", [True, False, ("a",), ("b",)])
def test_json_and_binary_inputs_mix(client, binary):
    result = client.infer("pair", pair(binary), request_id="seven")
    assert result.as_numpy("sum").tolist() == SUM
    assert result.as_numpy("difference").tolist() == DIFFERENCE
    assert result.get_response()["id"] == "seven"


@pytest.mark.parametrize("binary", [(True, False), (False, True), (False, False), (True, True)])
def test_each_output_comes_as_it_is_asked_for(client, binary):
    wanted = [
        triton.InferRequestedOutput(name, binary_data=one)
        for name, one in zip(("difference", "sum"), binary, strict=True)
    ]
    result = client.infer("pair", pair(), outputs=wanted)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["difference", "sum"]
    assert [("data" not in output) for output in result.get_response()["outputs"]] == list(binary)
    assert result.as_numpy("sum").tolist() == SUM
    assert result.as_numpy("difference").tolist() == DIFFERENCE


def test_one_output_alone(client):
    result = client.infer("pair", pair(), outputs=[triton.InferRequestedOutput("sum")])
    assert result.as_numpy("sum").tolist() == SUM
    assert result.as_numpy("difference") is None


@pytest.mark.parametrize("sent", ["gzip", "deflate", None])
@pytest.mark.parametrize("received", ["gzip", "deflate", None])
def test_bodies_are_encoded_both_ways(client, sent, received):
    rows = [[number, 2 * number] for number in range(20_000)]
    result = client.infer(
        "pair",
        pair(a=rows, b=rows),
        request_compression_algorithm=sent,
        response_compression_algorithm=received,
    )
    assert result.as_numpy("sum").tolist() == (2 * np.array(rows)).tolist()


def test_many_requests_at_the_same_time(server):
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=8) as client:
        asked = [client.async_infer("pair", pair(b=[[n, n]] * 2)) for n in range(100)]
        for n, one in enumerate(asked):
            assert one.get_result(timeout=30).as_numpy("sum").tolist() == [[1 + n, 2 + n], [3 + n, 4 + n]]


def test_what_is_known_about_the_server_and_its_model(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pair")
    assert client.is_model_ready("pair", "1")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("pair", "1")
    assert (metadata["name"], metadata["versions"], len(metadata["inputs"])) == ("pair", ["1"], 2)
    config = client.get_model_config("pair")
    # The first axis is a batch axis: as in Triton, shapes of the configuration are without it.
    assert (config["backend"], config["max_batch_size"]) == (
        "onnxruntime",
        metadata["parameters"]["max_batch_size"],
    )
    assert config["input"][0] == {"name": "a", "data_type": "TYPE_FP32", "dims": [2]}


def test_statistics(client):
    def sums():
        return client.get_inference_statistics("pair", "1")["model_stats"][0]["inference_stats"]

    before = sums()
    client.infer("pair", pair())
    with pytest.raises(InferenceServerException):
        client.infer("pair", pair()[:1])
    after = sums()
    assert after["success"]["count"] == before["success"]["count"] + 1
    assert after["fail"]["count"] == before["fail"]["count"] + 1
    assert after["compute_infer"]["ns"] > before["compute_infer"]["ns"]


def test_parameters(client):
    result = client.infer("pair", pair(), timeout=10_000_000, priority=3, parameters={"color": "red"})
    assert result.as_numpy("sum").tolist() == SUM
    with pytest.raises(InferenceServerException, match=r"parameters\.sequence_id: not supported") as refusal:
        client.infer("pair", pair(), sequence_id=4, sequence_start=True)
    assert refusal.value.status() == "400"
    with pytest.raises(
        InferenceServerException, match=r"outputs\[0\].parameters.classification: not supported"
    ):
        client.infer("pair", pair(), outputs=[triton.InferRequestedOutput("sum", class_count=3)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: pair()[:1], "inputs: expected also 'b'"),
        (lambda: pair(a=[[1, 2, 3]]), r"inputs\[0\].shape\[1\]: expected 2, found 3"),
        (
            lambda: [triton.InferInput("c", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))],
            r"inputs\[0\].name",
        ),
    ],
)
def test_a_refusal_names_the_field(client, given, message):
    with pytest.raises(InferenceServerException, match=message) as refusal:
        client.infer("pair", given())
    assert refusal.value.status() == "400"


def test_a_request_made_by_hand_as_the_client_library_makes_it(client):
    body, length = triton.InferenceServerClient.generate_request_body(pair())
    assert length < len(body)
    answer = client._post("v2/models/pair/infer", body, {"Inference-Header-Content-Length": length}, None)
    result = triton.InferenceServerClient.parse_response_body(
        answer.read(), header_length=int(answer.get("Inference-Header-Content-Length"))
    )
    assert result.as_numpy("sum").tolist() == SUM
