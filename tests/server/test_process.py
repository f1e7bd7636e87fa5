"""The real process: start, answers, footprint, drain under load, and every way a load can fail."""

import asyncio
import json
import signal
import socket

import numpy as np
import onnxruntime
import pytest

from tests.server.onnx_models import identity, loop, mlp, save, save_with_external_data
from tests.server.process import Endpoints, Load, ask, running
from tests.unit.server.golden_archive import entries, tar, write

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

DIGEST = "sha256:" + "e" * 64
# The promise is "80 MB + model"; this model has 38 KB.
RESIDENT_BYTES = 80_000_000


def model_directory(root, model):
    save(model, root / "model.onnx")
    description = {
        "schemaVersion": 1,
        "name": "d",
        "version": "1.4.0",
        "digest": DIGEST,
        "file": "model.onnx",
    }
    (root / "model.json").write_text(json.dumps(description))
    return root


def infer_body(values):
    return json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": list(values.shape), "data": values.tolist()}]}
    ).encode()


def rounds(count):
    """A body that keeps `onnx_models.loop` busy for about so many milliseconds."""
    return infer_body(np.array([count], np.float32))


async def until(condition):
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 — the other process sets no event here
            await asyncio.sleep(0.01)


async def inflight(port):
    text = (await ask(port, "GET", "/metrics"))[2].decode()
    return sum(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("inference_inflight_requests{")
    )


async def test_a_directory_is_served_and_answers_as_onnxruntime_does(tmp_path):
    root = model_directory(tmp_path, mlp())
    x = np.random.default_rng(1).standard_normal((5, 64), np.float32)
    (expected,) = onnxruntime.InferenceSession(str(root / "model.onnx")).run(None, {"x": x})
    with running(model=root) as server:
        ready = server.event("ready")
        assert (ready["model"], ready["version"], ready["digest"]) == ("d", "1.4.0", DIGEST)
        status, _, body = await ask(server.port, "POST", "/v2/models/d/versions/1.4.0/infer", infer_body(x))
        assert status == 200
        answer = json.loads(body)
        assert (answer["model_name"], answer["model_version"]) == ("d", "1.4.0")
        found = np.array(answer["outputs"][0]["data"], np.float32).reshape(answer["outputs"][0]["shape"])
        np.testing.assert_array_equal(found, expected)
        metrics = (await ask(server.port, "GET", "/metrics"))[2].decode()
        assert f'inference_model_info{{digest="{DIGEST}",model="d",version="1.4.0"}} 1.0' in metrics
        assert "_created" not in metrics


async def test_the_footprint_is_what_is_promised(tmp_path):
    with running(model=model_directory(tmp_path, mlp())) as server:
        ready = server.event("ready")
        body = infer_body(np.ones((1, 64), np.float32))
        for _ in range(200):
            assert (await ask(server.port, "POST", "/v2/models/d/infer", body))[0] == 200
        assert server.resident_bytes() <= RESIDENT_BYTES
        # Generous: this machine may be busy with other tests. The figure itself is a benchmark's.
        assert ready["start_seconds"] < 5


async def test_external_data_is_served_from_its_own_file(tmp_path):
    save_with_external_data(tmp_path / "m.onnx", "weights/m.data")
    with running(model=tmp_path) as server:
        server.event("ready")
        x = np.arange(64, dtype=np.float32)[None]
        _, _, body = await ask(server.port, "POST", f"/v2/models/{tmp_path.name}/infer", infer_body(x))
        assert json.loads(body)["outputs"][0]["data"] == x[0].tolist()


async def ended_under_load(old, new, clients, end):
    """Have one of two servers end while clients ask both; return the load and that server's exit code."""
    endpoints = Endpoints(old.port, new.port)
    load = Load(endpoints, "/v2/models/d/infer", infer_body(np.ones((1, 64), np.float32)))
    watcher = asyncio.create_task(endpoints.watch())
    tasks = [asyncio.create_task(load.client(number)) for number in range(clients)]

    async def both_answer():
        return all(count > 100 for count in load.answered.values())

    await until(both_answer)
    end()
    code = await asyncio.to_thread(old.exit_code)
    after = load.answered[new.port]

    async def the_other_carries_on():
        return load.answered[new.port] > after + 200

    await until(the_other_carries_on)
    load.done = True
    await asyncio.gather(*tasks)
    watcher.cancel()
    return load, code


@pytest.mark.parametrize("options", [(), ("--cache-bytes", 1 << 20)], ids=["computed", "kept"])
async def test_no_request_fails_when_one_of_two_is_told_to_end(tmp_path, options):
    root = model_directory(tmp_path, mlp())
    options = ("--drain-delay", 1, *options)
    with running(*options, model=root) as old, running(*options, model=root) as new:
        for server in (old, new):
            server.event("ready")
        load, code = await ended_under_load(old, new, 16, lambda: old.process.send_signal(signal.SIGTERM))
        assert load.failures == []
        assert load.told_to_move >= 8
        assert code == 0
        assert old.event("stopped")["requests_cut_off"] == 0


async def begin(server, body):
    """Send a request and wait until it is being computed."""
    server.event("ready")
    pending = asyncio.create_task(ask(server.port, "POST", "/v2/models/loop/infer", body))

    async def computing():
        return await inflight(server.port) == 1

    await until(computing)
    return pending


async def test_a_request_in_flight_is_finished_after_the_listener_closed(tmp_path):
    save(loop(), tmp_path / "loop.onnx")
    with running("--drain-delay", 0, model=tmp_path / "loop.onnx") as server:
        pending = await begin(server, rounds(1500))
        server.process.send_signal(signal.SIGTERM)
        server.event("draining")
        status, headers, body = await pending
        assert (status, headers["connection"]) == (200, "close")
        assert json.loads(body)["outputs"][0]["data"] == [pytest.approx(1 / 256)]
        assert server.exit_code() == 0
        assert server.event("stopped")["requests_cut_off"] == 0


async def test_a_request_that_outlasts_the_drain_is_cut_off(tmp_path):
    save(loop(), tmp_path / "loop.onnx")
    with running("--drain-delay", 0, "--drain-timeout", 0.2, model=tmp_path / "loop.onnx") as server:
        pending = await begin(server, rounds(10_000_000))
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises((EOFError, ConnectionError)):
            await pending
        assert server.exit_code() == 0
        assert server.event("stopped")["requests_cut_off"] == 1


def test_a_server_told_to_end_before_it_is_ready_ends(tmp_path):
    with running("--drain-delay", 0, model=model_directory(tmp_path, mlp())) as server:
        server.event("listening")
        server.process.send_signal(signal.SIGTERM)
        assert server.exit_code() == 0


async def test_while_draining_new_connections_are_served_and_readiness_says_no(tmp_path):
    root = model_directory(tmp_path, mlp())
    with running("--drain-delay", 60, model=root) as server:
        server.event("ready")
        server.process.send_signal(signal.SIGTERM)
        server.event("draining")
        assert (await ask(server.port, "GET", "/v2/health/ready"))[0] == 503
        assert (await ask(server.port, "GET", "/v2/health/live"))[0] == 200
        body = infer_body(np.ones((1, 64), np.float32))
        status, headers, _ = await ask(server.port, "POST", "/v2/models/d/infer", body)
        assert (status, headers["connection"]) == (200, "close")
        # A second signal skips the rest of the delay.
        server.process.send_signal(signal.SIGTERM)
        assert server.exit_code() == 0


def fails(tmp_path, *arguments, model):
    """Start a server that cannot serve; return exit code, last log line and termination message."""
    log = tmp_path / "termination-log"
    log.touch()
    with running("--termination-log", log, *arguments, model=model) as server:
        code = server.exit_code()
        last = json.loads(server.lines[-1])
        message = json.loads(log.read_bytes())
        assert (last["level"], last["reason"], last["message"]) == (
            "critical",
            message["reason"],
            message["message"],
        )
        assert not any("Traceback" in line for line in server.lines)
        return code, message["reason"], message["message"]


def corrupt(root):
    (root / "m.onnx").write_bytes(b"\x08\x07garbage")


def missing_weights(root):
    save_with_external_data(root / "m.onnx", "m.data")
    (root / "m.data").unlink()


def ambiguous(root):
    save(identity(), root / "a.onnx")
    save(identity(), root / "b.onnx")


def empty(root):
    (root / "README").write_text("no model in here")


def unknown_opset(root):
    save(identity(opset=99), root / "m.onnx")


@pytest.mark.parametrize(
    ("make", "code", "reason", "message"),
    [
        (corrupt, 10, "ModelLoadFailed", "m.onnx: onnxruntime"),
        (unknown_opset, 11, "UnsupportedOpset", "m.onnx: needs opset 99"),
        (missing_weights, 12, "MissingExternalData", "expected the weights file 'm.data'"),
        (ambiguous, 13, "AmbiguousModelFile", "found 2 (a.onnx, b.onnx)"),
        (empty, 14, "ModelFileNotFound", "expected an .onnx file, found none"),
    ],
)
def test_a_model_that_cannot_be_served_ends_the_process_with_its_reason(
    tmp_path, make, code, reason, message
):
    root = tmp_path / "model"
    root.mkdir()
    make(root)
    found = fails(tmp_path, model=root)
    assert found[:2] == (code, reason)
    assert message in found[2]


def test_an_address_in_use_is_said(tmp_path):
    root = model_directory(tmp_path / "model", mlp())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, reason, message = fails(tmp_path, "--port", taken.getsockname()[1], model=root)
    assert (code, reason) == (3, "ListenFailed")
    assert "address already in use" in message.lower()


async def test_without_a_host_every_address_is_served(tmp_path):
    with running("--host", "", model=model_directory(tmp_path, mlp())) as server:
        server.event("ready")
        for host in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
            _, writer = await asyncio.open_connection(host, server.port)
            writer.close()


def test_a_bad_setting_is_said(tmp_path):
    code, reason, message = fails(tmp_path, "--threads", "many", model=tmp_path)
    assert (code, reason) == (2, "InvalidSettings")
    assert message == "--threads: expected a whole number from 1 to 1024, found 'many'"


# -- golden samples -----------------------------------------------------------------------------------------------------


def with_samples(root, model, answers):
    """A model directory whose one sample expects these answers."""
    x = np.random.default_rng(2).standard_normal((3, 64), np.float32)
    (y,) = onnxruntime.InferenceSession(str(save(answers, root / "answers.onnx"))).run(None, {"x": x})
    (root / "answers.onnx").unlink()
    write(root, tar(entries({"one": ({"x": x}, {"y": y})})))
    return model_directory(root, model)


@pytest.mark.parametrize(
    ("seed", "outcome", "words"),
    [(0, "Pass", ""), (1, "Fail", "sample 'one', output 'y': index [1, 0]: expected ")],
)
async def test_golden_samples_are_run_before_the_server_is_ready(tmp_path, seed, outcome, words):
    with running(model=with_samples(tmp_path, mlp(seed), mlp(0))) as server:
        assert server.event("ready")["golden_samples"].startswith(outcome)
        status, _, body = await ask(server.port, "GET", "/v2/models/d/golden")
        said = json.loads(body)
        assert (status, said["outcome"], said["total"]) == (200, outcome, 1)
        assert words in (said["failures"][0]["message"] if said["failures"] else "")
        metrics = (await ask(server.port, "GET", "/metrics"))[2].decode()
        line = f'inference_golden_samples{{model="d",outcome="{outcome}",version="1.4.0"}} 1.0'
        assert line in metrics
        assert "inference_requests_total{" not in metrics
        values = np.zeros((1, 64), np.float32)
        assert (await ask(server.port, "POST", "/v2/models/d/infer", infer_body(values)))[0] == 200


async def test_a_model_slower_than_its_samples_may_take_is_served_all_the_same(tmp_path):
    root = model_directory(tmp_path, loop())
    x, y = np.array([30_000], np.float32), np.array(1 / 256, np.float32)
    write(root, tar(entries({"slow": ({"x": x}, {"y": y})})))
    with running("--golden-timeout", "0.2", model=root) as server:
        assert server.event("ready")["golden_samples"] == "Fail 0/1"
        said = json.loads((await ask(server.port, "GET", "/v2/models/d/golden"))[2])
        assert "longer than the 0.2 s" in said["failures"][0]["message"]


async def test_the_server_answers_that_it_lives_and_stops_when_told_while_samples_run(tmp_path):
    root = model_directory(tmp_path, loop())
    x, y = np.array([30_000], np.float32), np.array(1 / 256, np.float32)
    write(root, tar(entries({"slow": ({"x": x}, {"y": y})})))
    with running(model=root) as server:
        server.event("running golden samples")
        assert (await ask(server.port, "GET", "/v2/health/live"))[0] == 200
        assert (await ask(server.port, "GET", "/v2/health/ready"))[0] == 503
        assert (await ask(server.port, "GET", "/v2/models/d/golden"))[0] == 503
        server.process.send_signal(signal.SIGTERM)
        assert server.exit_code() == 0
