"""Several processes at one port: one server for whoever asks, whatever becomes of one of them."""

import asyncio
import json
import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from inference_server.host.cgroup import whole_cpus
from tests.server.onnx_models import loop, mlp
from tests.server.process import Endpoints, Load, ask, request, running
from tests.server.test_process import ended_under_load, fails, infer_body, model_directory, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

ONE = infer_body(np.ones((1, 64), np.float32))
INFER = "/v2/models/d/infer"


@contextmanager
def several(tmp_path, *arguments, processes=2):
    """A server all of whose processes serve."""
    with running("--processes", processes, *arguments, model=model_directory(tmp_path, mlp())) as server:
        server.event("all processes serve")
        yield server


def children(server):
    """Process ids of the further processes."""
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def sockets(pid):
    """Number of sockets that a process has open."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += str(link.readlink()).startswith("socket:")
    return found


def queued(port):
    """Number of connections of a port that nobody has accepted yet (proc(5), `/proc/net/tcp`)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"
    )


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def metric(port, start):
    """The sum of the samples whose lines start so."""
    lines = (await ask(port, "GET", "/metrics"))[2].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))


async def test_all_answer_rightly_and_each_tells_the_numbers_of_all(tmp_path):
    with several(tmp_path, processes=3) as server:
        port, (one, other) = server.port, children(server)
        before = {pid: sockets(pid) for pid in (one, other)}
        x = np.random.default_rng(3).standard_normal((48, 5, 64), np.float32)
        session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
        connected = asyncio.Barrier(len(x) + 1)

        async def client(rows):
            (expected,) = session.run(None, {"x": rows})
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await request(reader, writer, "GET", "/v2/health/ready")
            await connected.wait()
            await connected.wait()
            for _ in range(10):
                status, _, body = await request(reader, writer, "POST", INFER, infer_body(rows))
                assert status == 200
                found = np.array(json.loads(body)["outputs"][0]["data"], np.float32).reshape(5, 10)
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
            writer.close()

        clients = [asyncio.create_task(client(rows)) for rows in x]
        await connected.wait()
        assert sockets(one) > before[one]
        assert sockets(other) > before[other]
        await connected.wait()
        await asyncio.gather(*clients)
        for _ in range(12):
            assert await metric(port, 'inference_requests_total{code="200"') == 480
            assert await metric(port, "inference_request_duration_seconds_count") == 480
            assert await metric(port, "inference_inflight_requests") == 0
            assert await metric(port, "inference_processes") == 3
            told = json.loads((await ask(port, "GET", "/v2/models/d/stats"))[2])["model_stats"][0]
            assert (told["inference_stats"]["success"]["count"], told["inference_count"]) == (480, 2400)
            described = json.loads((await ask(port, "GET", "/v2/models/d"))[2])
            assert described["parameters"]["processes"] == 3
        resident = await metric(port, "process_resident_memory_bytes")
        assert abs(resident - server.resident_bytes()) < 0.1 * resident


async def test_when_one_is_killed_only_its_requests_break_and_it_comes_back(tmp_path):
    with several(tmp_path) as server:
        port, (victim,) = server.port, children(server)
        quiet = sockets(victim)
        load = Load(Endpoints(port), INFER, ONE)
        clients = [asyncio.create_task(load.client(number)) for number in range(16)]

        async def asked(count, since=0):
            async def answered():
                return load.answered[port] > since + count

            await until(answered)

        await asked(300)
        held = sockets(victim) - quiet
        counted = await metric(port, "inference_requests_total")
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(server.event, "all processes serve", 2)
        # Its connections broke, once each, and no other did.
        broken = len(load.failures)
        assert broken <= held <= 16
        await asked(500, load.answered[port])
        assert len(load.failures) == broken
        load.done = True
        await asyncio.gather(*clients)
        assert await metric(port, "inference_requests_total") >= max(counted, load.answered[port])
        assert await metric(port, "inference_inflight_requests") == 0
        assert await metric(port, "inference_processes") == 2
        told = server.event("process ended; the others serve on")
        assert (told["ended"], told["processes_serving"]) == ("signal 9 (Killed)", 1)
        assert victim not in children(server)


async def test_connections_that_wait_for_a_killed_process_are_answered(tmp_path):
    with several(tmp_path) as server:
        port, (victim,) = server.port, children(server)
        os.kill(victim, signal.SIGSTOP)
        pending = [asyncio.create_task(ask(port, "POST", INFER, ONE)) for _ in range(40)]

        async def the_others_wait():
            done = sum(task.done() for task in pending)
            return 0 < done < 40 and done + queued(port) == 40

        await until(the_others_wait)
        os.kill(victim, signal.SIGKILL)
        assert {status for status, _, _ in await asyncio.gather(*pending)} == {200}


async def test_no_request_fails_when_the_server_is_told_to_end(tmp_path):
    with (
        several(tmp_path, "--drain-delay", 1) as old,
        running("--drain-delay", 1, model=tmp_path) as new,
    ):
        new.event("ready")
        (child,) = children(old)

        def end():
            # As service managers do, which signal all processes of a service.
            for pid in (child, old.process.pid):
                os.kill(pid, signal.SIGTERM)

        load, code = await ended_under_load(old, new, 24, end)
        assert load.failures == []
        assert code == 0
        assert gone(child)
        stopped = [json.loads(line) for line in old.lines if '"stopped"' in line]
        assert [(it.get("process", 0), it["requests_cut_off"]) for it in stopped] == [(1, 0), (0, 0)]


async def test_what_another_process_had_to_cut_off_is_counted(tmp_path):
    root = model_directory(tmp_path, loop())
    options = ("--processes", 2, "--drain-delay", 0, "--drain-timeout", 0.2)
    with running(*options, model=root) as server:
        server.event("all processes serve")
        port, (child,) = server.port, children(server)
        held = sockets(child)
        body = infer_body(np.array([10_000_000], np.float32))
        pending = []

        async def both_compute():
            if sockets(child) == held or len(pending) == sockets(child) - held:
                pending.append(asyncio.create_task(ask(port, "POST", INFER, body)))
            computing = await metric(port, "inference_inflight_requests")
            return sockets(child) - held >= 1 and computing == len(pending)

        await until(both_compute)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*pending, return_exceptions=True)
        assert server.exit_code() == 0
        stopped = [json.loads(line) for line in server.lines if '"stopped"' in line]
        assert sum(it["requests_cut_off"] for it in stopped if "process" not in it) == len(pending)


async def test_the_others_end_with_the_first_one(tmp_path):
    with several(tmp_path, processes=3) as server:
        others = children(server)
        os.kill(others[0], signal.SIGSTOP)  # not even one that does nothing stays
        server.process.kill()

        async def all_gone():
            return all(map(gone, others))

        await until(all_gone)


async def test_a_model_that_was_replaced_meanwhile_is_not_mixed_with_the_one_that_is_served(tmp_path):
    with several(tmp_path) as server:
        port, (child,) = server.port, children(server)
        file = tmp_path / "model.onnx"
        before = file.stat()
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        os.kill(child, signal.SIGKILL)
        told = await asyncio.to_thread(server.event, "process cannot serve")
        assert "changed since the server was started" in told["message"]
        for _ in range(20):
            assert (await ask(port, "POST", INFER, ONE))[0] == 200
        assert await metric(port, "inference_processes") == 1
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        await asyncio.to_thread(server.event, "all processes serve", 2)
        assert await metric(port, "inference_processes") == 2


async def test_as_many_as_pay(tmp_path):
    with running("--processes", "auto", model=model_directory(tmp_path, mlp())) as server:
        processes = server.event("ready")["processes"]
        assert processes == max(1, whole_cpus())
        if processes > 1:
            server.event("all processes serve")
        assert len(children(server)) == processes - 1


async def test_a_model_that_takes_long_has_one_process_by_itself(tmp_path):
    with running("--processes", "auto", model=model_directory(tmp_path, loop())) as server:
        assert server.event("ready")["processes"] == 1
        assert (await ask(server.port, "GET", "/v2/health/ready"))[0] == 200
        assert children(server) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_that_a_server_has_is_no_other_servers(tmp_path, processes):
    with several(tmp_path) as server:
        options = ("--processes", processes, "--port", server.port)
        code, reason, message = fails(tmp_path, *options, model=tmp_path)
        assert (code, reason) == (3, "ListenFailed")
        assert "address already in use" in message.lower()


def test_a_repository_has_one_process(tmp_path):
    code, reason, message = fails(tmp_path, "--model-repository", tmp_path, "--processes", 2, model=None)
    assert (code, reason) == (2, "InvalidSettings")
    assert message.startswith("--processes: expected 1 beside --model-repository")
