"""The real process and the clients that others wrote: tritonclient, grpcio, and its health and reflection clients."""

import asyncio
import signal
import warnings

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.server.onnx_models import identity, loop, mlp, save
from tests.server.process import ask, running

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its messages were made for the protobuf before this one
    import tritonclient.grpc as triton
    import tritonclient.grpc.aio as triton_aio
    from tritonclient.utils import InferenceServerException

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = save(mlp(), tmp_path_factory.mktemp("model") / "m.onnx")
    with running("--max-body-bytes", 1_000_000, model=path) as server:
        server.event("ready")
        yield server


@pytest.fixture
def client(server):
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


def given(values, datatype="FP32", name="x"):
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor


def weights():
    random = np.random.default_rng(0)
    return [random.standard_normal(shape, dtype=np.float32) for shape in ((64, 128), (128, 10))]


def expected(values):
    first, second = weights()
    return np.maximum(values @ first, 0) @ second


def test_tritonclient_finds_what_it_asks_for(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1")
    assert "statistics" in client.get_server_metadata().extensions
    assert client.get_model_metadata("m").inputs[0].name == "x"
    assert client.get_model_config("m", as_json=True)["config"]["backend"] == "onnxruntime"


def test_tritonclient_infers(client):
    values = np.random.default_rng(1).standard_normal((3, 64), dtype=np.float32)
    for options in (
        {},
        {"request_id": "seven"},
        {"outputs": [triton.InferRequestedOutput("y")]},
        {"compression_algorithm": "gzip"},
        {"compression_algorithm": "deflate"},
        {"client_timeout": 20.0},
        {"timeout": 20_000_000},
        {"model_version": "1"},
        {"priority": 1},
        {"headers": {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}},
    ):
        result = client.infer("m", [given(values)], **options)
        np.testing.assert_allclose(result.as_numpy("y"), expected(values), rtol=1e-4, atol=1e-4)
        assert result.get_response().id == options.get("request_id", "")
    statistics = client.get_inference_statistics("m").model_stats[0]
    assert statistics.inference_stats.success.count >= 10


def test_tritonclient_gets_errors_it_understands(client):
    values = np.zeros((1, 64), np.float32)
    for infer, code in (
        (lambda: client.infer("w", [given(values)]), "NOT_FOUND"),
        (lambda: client.infer("m", [given(values, name="w")]), "INVALID_ARGUMENT"),
        (lambda: client.infer("m", [given(np.zeros((1, 63), np.float32))]), "INVALID_ARGUMENT"),
        (lambda: client.infer("m", [given(np.zeros((5000, 64), np.float32))]), "RESOURCE_EXHAUSTED"),
        (client.get_model_repository_index, "UNIMPLEMENTED"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            infer()
        assert code in refused.value.status()
    assert client.is_server_live()


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BYTES", np.array([["ä".encode(), b""], [b"c", b"d" * 1000]], np.object_)),
        ("FP16", np.array([[1.5, np.inf], [0, -2]], np.float16)),
        ("BOOL", np.array([[True, False], [False, True]])),
        ("INT64", np.array([[2**63 - 1, -(2**63)], [0, 1]])),
        ("UINT8", np.array([[255, 0], [1, 2]], np.uint8)),
    ],
)
def test_tritonclient_gets_back_what_it_sent(tmp_path, datatype, values):
    path = save(identity(datatype, ("batch", 2)), tmp_path / "m.onnx")
    with running(model=path) as server:
        server.event("ready")
        client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
        found = client.infer("m", [given(values, datatype)]).as_numpy("y")
        assert np.array_equal(found, values)
        client.close()


def test_large_tensors_pass_both_ways(tmp_path):
    path = save(identity("FP32", ("batch", 1080, 1920)), tmp_path / "m.onnx")
    with running(model=path) as server:
        server.event("ready")
        values = np.random.default_rng(2).random((3, 1080, 1920), dtype=np.float32)
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        client = triton.InferenceServerClient(f"127.0.0.1:{server.port}", channel_args=options)
        for _ in range(3):
            assert np.array_equal(client.infer("m", [given(values)]).as_numpy("y"), values)
        client.close()


async def test_many_calls_at_a_time(server):
    client = triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}")
    values = np.random.default_rng(3).standard_normal((500, 1, 64), dtype=np.float32)
    answers = await asyncio.gather(*(client.infer("m", [given(one)]) for one in values))
    for one, answer in zip(values, answers, strict=True):
        np.testing.assert_allclose(answer.as_numpy("y"), expected(one), rtol=1e-4, atol=1e-4)
    await client.close()


def test_health_and_reflection_by_their_own_clients(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        question = health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
        assert health.Check(question, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(question, timeout=10)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in database.get_services()
        file = database.FindFileContainingSymbol("inference.GRPCInferenceService")
        assert "ModelInfer" in [method.name for method in file.service[0].method]


def test_one_port_speaks_both(server, client):
    assert client.is_server_live()
    assert asyncio.run(ask(server.port, "GET", "/v2/health/ready"))[0] == 200


async def test_a_drain_fails_no_call(tmp_path):
    """One client's calls go on while one of two servers ends; grpcio moves to the other by itself."""
    path = save(loop(), tmp_path / "m.onnx")
    with running("--drain-delay", 1, model=path) as old, running(model=path) as new:
        for server in (old, new):
            server.event("ready")
        target = f"ipv4:127.0.0.1:{old.port},127.0.0.1:{new.port}"
        client = triton_aio.InferenceServerClient(target)
        done, moved = asyncio.Event(), 0

        async def calls():
            nonlocal moved
            while not done.is_set():
                await client.infer("m", [given(np.array([2], np.float32))])
                moved += 1

        callers = [asyncio.create_task(calls()) for _ in range(4)]
        async with asyncio.timeout(30):
            while moved < 20:  # noqa: ASYNC110 — counted by the callers
                await asyncio.sleep(0.01)
            old.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(old.exit_code) == 0
            after = moved
            while moved < after + 20:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        done.set()
        await asyncio.gather(*callers)
        assert old.event("stopped")["requests_cut_off"] == 0
        await client.close()
