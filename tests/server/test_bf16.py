"""BF16 against the real process: what tritonclient sends and gets, bit by bit, and what JSON is refused."""

import asyncio
import json
import re
import warnings

import numpy as np
import pytest
import tritonclient.http as http
from ml_dtypes import bfloat16

from inference_server.engine.model import Model
from inference_server.files.model_directory import find_model
from tests.server.onnx_models import bf16_linear, identity, save
from tests.server.process import ask, request, running

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its messages were made for the protobuf before this one
    import tritonclient.grpc as grpc

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

X = np.random.default_rng(1).standard_normal((5, 8), np.float32).astype(bfloat16)
INFER = "/v2/models/m/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(model=save(bf16_linear(), tmp_path_factory.mktemp("model") / "m.onnx")) as server:
        server.event("ready")
        yield server


@pytest.fixture(params=[http, grpc], ids=["http", "grpc"])
def triton(request):
    return request.param


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What ONNX Runtime computes for X, of the model with FP32 at its border: every number is one of BF16."""
    path = save(bf16_linear("FP32"), tmp_path_factory.mktemp("model") / "m.onnx")
    (y,) = Model(find_model(path), 1).run(["y"], {"x": X.astype(np.float32)})
    return y.astype(bfloat16)


def test_tritonclient_gets_what_onnx_runtime_computes(server, triton, expected):
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    given = triton.InferInput("x", list(X.shape), "BF16")
    given.set_data_from_numpy(X)
    for outputs in (None, None, [triton.InferRequestedOutput("y")]):  # the second time the request is known
        found = client.infer("m", [given], outputs=outputs).as_numpy("y")
        assert (found.dtype, found.tobytes()) == (bfloat16, expected.tobytes())
    client.close()


def test_metadata_and_configuration_say_bf16(server):
    with http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        metadata, config = client.get_model_metadata("m"), client.get_model_config("m")
    assert metadata["inputs"] == [{"name": "x", "datatype": "BF16", "shape": [-1, 8]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": "BF16", "shape": [-1, 3]}]
    assert config["input"][0]["data_type"] == "TYPE_BF16"
    client = grpc.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.get_model_metadata("m").inputs[0].datatype == "BF16"
    assert client.get_model_config("m", as_json=True)["config"]["input"][0]["data_type"] == "TYPE_BF16"
    client.close()


def body(size=16, raw=bytes(16), all_binary=True, **changes):
    """A request for one row, and the header that says how long its JSON is."""
    entry = {
        "name": "x",
        "datatype": "BF16",
        "shape": [1, 8],
        "parameters": {"binary_data_size": size},
        **changes,
    }
    text = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": all_binary}}).encode()
    return text + raw, {"Inference-Header-Content-Length": str(len(text))}


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (
            body(None, b"", data=[0] * 8),
            r"inputs\[0\].data: BF16 has no form in JSON; send the tensor as binary",
        ),
        (body(None, b"", data=[[0.5] * 8]), r"inputs\[0\].data: BF16 has no form in JSON"),
        (body(all_binary=False), "outputs: 'y' is BF16, which has no form in JSON; ask for it as binary"),
        (
            body(15, bytes(15)),
            r"inputs\[0\].parameters.binary_data_size: expected 16 for shape \[1, 8\] of BF16",
        ),
        (body(32, bytes(32)), r"binary_data_size: expected 16 for shape \[1, 8\] of BF16, found 32"),
        (body(datatype="UINT16"), r"inputs\[0\].datatype: expected 'BF16', found 'UINT16'"),
        ((bytes(17), {"Inference-Header-Content-Length": "0"}), "body: expected a multiple of 16 bytes"),
    ],
)
async def test_a_refusal_names_the_field(server, sent, words):
    content, headers = sent
    status, _, answer = await ask(server.port, "POST", INFER, content, headers)
    assert status == 400
    assert re.search(words, json.loads(answer)["error"])


def test_grpc_has_no_typed_bf16(server):
    client = grpc.InferenceServerClient(f"127.0.0.1:{server.port}")
    given = grpc.InferInput("x", [1, 8], "BF16")
    given._get_tensor().contents.fp32_contents.extend([0.5] * 8)
    with pytest.raises(
        grpc.InferenceServerException, match=r"inputs\[0\].contents: BF16 has no list of its own"
    ):
        client.infer("m", [given])
    given = grpc.InferInput("x", [1, 7], "BF16")
    given.set_data_from_numpy(X[:1, :7])
    given.set_shape([1, 8])
    with pytest.raises(grpc.InferenceServerException, match=r"raw_input_contents\[0\]: expected 16 bytes"):
        client.infer("m", [given])
    client.close()


async def test_every_bit_pattern_passes_and_answers_may_be_kept(tmp_path):
    bits = np.arange(1 << 16, dtype="<u2").tobytes()  # every NaN among them
    with running(
        "--cache-bytes", 1_000_000, model=save(identity("BF16", ("n",)), tmp_path / "m.onnx")
    ) as server:
        server.event("ready")
        for kept in ("miss", "hit"):
            head = {"Inference-Header-Content-Length": "0"}
            status, headers, answer = await ask(server.port, "POST", INFER, bits, head)
            assert (status, headers["edgemodel-cache"]) == (200, kept)
            assert answer[int(headers["inference-header-content-length"]) :] == bits


async def test_requests_that_share_a_run_get_their_own_rows(expected, tmp_path):
    head = {"Inference-Header-Content-Length": "0"}

    async def client(port, row):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(50):
            _, headers, answer = await request(reader, writer, "POST", INFER, X[row].tobytes(), head)
            assert answer[int(headers["inference-header-content-length"]) :] == expected[row].tobytes()
        writer.close()

    # On threads: as cheap a run is not worth sharing on the event loop's own.
    with running("--sessions", 2, model=save(bf16_linear(), tmp_path / "m.onnx")) as server:
        server.event("ready")
        await asyncio.gather(*(client(server.port, number % len(X)) for number in range(40)))
        _, _, statistics = await ask(server.port, "GET", "/v2/models/m/stats")
    batches = json.loads(statistics)["model_stats"][0]["batch_stats"]
    assert max(batch["batch_size"] for batch in batches) > len(X)
