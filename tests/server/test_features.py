"""The real process with what is off by default: kept answers, several models, the request log, traces."""

import asyncio
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import tritonclient.grpc
from onnx import helper, numpy_helper
from tritonclient.utils import InferenceServerException

from tests.server.onnx_models import build, mlp, save, tensor
from tests.server.process import ask, running
from tests.server.test_process import infer_body, model_directory, until
from tests.unit.server.telemetry.test_tracing import PARENT, TRACE, Collector

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

X = infer_body(np.ones((1, 64), np.float32))
INFER = "/v2/models/d/infer"


async def test_an_equal_request_is_answered_from_memory_with_the_same_bytes(tmp_path):
    root = model_directory(tmp_path, mlp())
    with running("--cache-bytes", 1 << 20, "--cache-ttl", 60, model=root) as server:
        server.event("ready")
        answers = [await ask(server.port, "POST", INFER, X) for _ in range(2)]
        assert [headers["edgemodel-cache"] for _, headers, _ in answers] == ["miss", "hit"]
        assert answers[0][2] == answers[1][2]
        _, headers, _ = await ask(server.port, "POST", INFER, X, {"Cache-Control": "no-store"})
        assert "edgemodel-cache" not in headers
        metrics = (await ask(server.port, "GET", "/metrics"))[2].decode()
        assert 'inference_cache_hits_total{model="d",version="1.4.0"} 1.0' in metrics
        assert 'inference_compute_duration_seconds_count{model="d",version="1.4.0"} 2.0' in metrics


async def test_the_request_log_is_json_on_stdout_and_complete_after_a_drain(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        root = model_directory(tmp_path, mlp())
        options = ("--request-log", 1, "--drain-delay", 0)
        with running(*options, model=root, stdout=log) as server:
            server.event("ready")
            context = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            for _ in range(20):
                await ask(server.port, "POST", INFER, X, context)
            await ask(server.port, "POST", INFER, b"{")
            server.process.send_signal(signal.SIGTERM)
            assert server.exit_code() == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["code"] for line in lines] == ["200"] * 20 + ["400"]
    first = lines[0]
    assert (first["model"], first["version"], first["trace_id"]) == ("d", "1.4.0", TRACE)
    assert (first["bytes_in"], first["bytes_out"], first["batch_rows"]) == (256, 40, 1)
    assert first["queue_ms"] + first["compute_ms"] <= first["total_ms"]


async def test_spans_reach_a_collector(tmp_path):
    collector = Collector()
    try:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}"}
        options = {"model": model_directory(tmp_path, mlp()), "environment": environment}
        with running("--drain-delay", 0, **options) as server:
            server.event("ready")
            await ask(server.port, "POST", INFER, X, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
            server.process.send_signal(signal.SIGTERM)
            assert server.exit_code() == 0
        ((_, request),) = collector.requests
        (span,) = request.resource_spans[0].scope_spans[0].spans
        assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("infer d", TRACE, PARENT)
        assert [event.name for event in span.events] == ["queue", "compute"]
    finally:
        collector.end()


def test_a_server_that_traces_nothing_imports_nothing_of_it():
    code = (
        "import sys; from inference_server.telemetry.tracing import open_tracer; import inference_server.app; "
        "assert open_tracer({}) is None; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# -- several models -----------------------------------------------------------------------------------------------------


def heavy(megabytes):
    """A perceptron with so many megabytes of weights."""
    width = megabytes * (1 << 20) // 4 // 74
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in (("w1", (64, width)), ("w2", (width, 10)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w2"], ["y"]),
    ]
    return build(nodes, [tensor("x", shape=("batch", 64))], [tensor("y", shape=("batch", 10))], weights)


def shelf(root, **models):
    for name, model in models.items():
        (root / name).mkdir(parents=True)
        save(model, root / name / "model.onnx")
    return root


async def states(port):
    status, _, body = await ask(port, "POST", "/v2/repository/index")
    assert status == 200
    return {entry["name"]: entry["state"] for entry in json.loads(body)}


async def test_models_of_a_folder_are_served_side_by_side_loaded_and_unloaded(tmp_path):
    root = shelf(tmp_path / "models", a=mlp(0), b=mlp(1))
    (root / "broken").mkdir()
    (root / "broken/model.onnx").write_bytes(b"no model")
    with running("--model-repository", root) as server:
        ready = server.event("ready")
        assert (ready["models"], ready["not_loaded"]) == (["a", "b"], ["broken"])
        assert await states(server.port) == {"a": "READY", "b": "READY", "broken": "UNAVAILABLE"}
        answers = [
            json.loads((await ask(server.port, "POST", f"/v2/models/{name}/infer", X))[2])["outputs"][0]
            for name in ("a", "b")
        ]
        assert answers[0]["data"] != answers[1]["data"]
        assert (await ask(server.port, "POST", "/v2/repository/models/a/unload"))[0] == 200
        assert (await ask(server.port, "POST", "/v2/models/a/infer", X))[0] == 404
        assert (await ask(server.port, "GET", "/v2/health/ready"))[0] == 200
        shelf(root, c=mlp(2))
        for name, status in (("a", 200), ("c", 200), ("broken", 400), ("absent", 404), ("..%2Fa", 404)):
            answer = await ask(server.port, "POST", f"/v2/repository/models/{name}/load")
            assert answer[0] == status, (name, answer)
        assert await states(server.port) == dict.fromkeys("abc", "READY") | {"broken": "UNAVAILABLE"}
        assert not any("Traceback" in line for line in server.lines)


async def test_memory_for_one_is_shared_by_two_that_take_turns(tmp_path):
    root = shelf(tmp_path / "models", a=heavy(48), b=heavy(48))
    with running("--model-repository", root, "--repository-memory-bytes", 90_000_000) as server:
        server.event("ready")

        async def answers(name):
            status, headers, _ = await ask(server.port, "POST", f"/v2/models/{name}/infer", X)
            assert status == 200 or headers["retry-after"], (status, headers)
            return status == 200

        for name in "ababab":
            await until(lambda name=name: answers(name))
            loaded = [other for other, state in (await states(server.port)).items() if state == "READY"]
            assert loaded == [name]
        # What was unloaded has left memory: six loads of more than 50 MB each do not add up.
        assert server.resident_bytes() < 250_000_000


async def test_no_request_fails_while_another_model_is_loaded_and_unloaded(tmp_path):
    root = shelf(tmp_path / "models", a=mlp(0), b=mlp(1))
    with running("--model-repository", root, "--cache-bytes", 1 << 20) as server:
        server.event("ready")
        done = asyncio.Event()

        async def load():
            while not done.is_set():
                assert (await ask(server.port, "POST", "/v2/models/a/infer", X))[0] == 200

        clients = [asyncio.create_task(load()) for _ in range(4)]
        for _ in range(3):
            for operation in ("unload", "load"):
                path = f"/v2/repository/models/b/{operation}"
                assert (await ask(server.port, "POST", path))[0] == 200
        done.set()
        await asyncio.gather(*clients)


def test_the_repository_and_the_cache_by_tritons_grpc_client(tmp_path):
    root = shelf(tmp_path / "models", a=mlp(0), b=mlp(1))
    with running("--model-repository", root, "--cache-bytes", 1 << 20) as server:
        server.event("ready")
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert "model_repository" in client.get_server_metadata().extensions
            given = tritonclient.grpc.InferInput("x", [1, 64], "FP32")
            given.set_data_from_numpy(np.ones((1, 64), np.float32))
            one, again = (client.infer("a", [given]).as_numpy("y") for _ in range(2))
            assert one.tobytes() == again.tobytes()
            client.unload_model("a")
            states = {model.name: model.state for model in client.get_model_repository_index().models}
            assert states == {"a": "UNAVAILABLE", "b": "READY"}
            for refused in (
                lambda: client.infer("a", [given]),
                lambda: client.load_model("absent"),
            ):
                with pytest.raises(InferenceServerException, match="NOT_FOUND"):
                    refused()
            with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
                client.load_model("a", config="{}")
            client.load_model("a")
            assert client.is_model_ready("a")
            assert client.infer("a", [given]).as_numpy("y").tobytes() == one.tobytes()
