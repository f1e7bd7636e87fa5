"""What the data plane does beside answering: kept answers, records of requests, exemplars, liveness, slowing down."""

import asyncio
import json
import time

import numpy as np
import pytest

from inference_server.engine.plan import Plan
from inference_server.errors import NotFound
from inference_server.messages import Call, InferenceRequest
from inference_server.serving.dataplane import DataPlane
from inference_server.serving.result_cache import ResultCache
from inference_server.telemetry.metrics import Metrics
from inference_server.telemetry.observer import Observer
from tests.unit.server.conftest import Doubler, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
BODY = b'{"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}'
INFER = "/v2/models/m/infer"


class Notes:
    """A request log and a tracer that keep what they are told."""

    def __init__(self, *, wanted=True):
        self.wanted = wanted
        self.lines = []
        self.spans = []
        self.closed = 0

    def wants(self, code):
        return self.wanted

    def put(self, record):
        self.lines.append(record)

    def record(self, record, context):
        self.spans.append((record, context))

    def close(self):
        self.closed += 1


@pytest.fixture
def notes():
    return Notes()


async def test_a_request_is_told_of_with_its_stages(loopback, notes):
    async with loopback() as server:
        server.dataplane.observer = Observer(notes, notes)
        status, _, _ = await server.ask("POST", INFER, BODY, f"traceparent: {TRACEPARENT}\r\n")
        assert status == 200
        (line,) = notes.lines
        ((record, context),) = notes.spans
        assert record is line
        assert (line.model, line.version, line.protocol, line.id, line.code) == ("m", "1", "http", "7", "200")
        assert (line.bytes_in, line.bytes_out, line.rows, line.trace) == (8, 8, 1, TRACE)
        assert 0 <= line.decode <= line.total
        assert line.decode + line.queue + line.compute <= line.total
        assert context.trace_id == TRACE


async def test_a_request_that_could_not_be_decoded_is_told_of_too(loopback, notes):
    async with loopback() as server:
        server.dataplane.observer = Observer(notes, None)
        assert (await server.ask("POST", INFER, b"{", "traceparent: junk\r\n"))[0] == 400
        assert (await server.ask("POST", "/v2/models/other/infer", BODY))[0] == 404
        first, second = notes.lines
        assert (first.code, first.rows, first.trace) == ("400", 0, "")
        assert (second.code, second.model, second.version) == ("404", "other", "")


async def test_what_the_log_does_not_want_is_not_made(loopback):
    async with loopback() as server:
        notes = Notes(wanted=False)
        server.dataplane.observer = Observer(notes, None)
        assert (await server.ask("POST", INFER, BODY))[0] == 200
        assert notes.lines == []
        server.dataplane.observer.close()
        assert notes.closed == 1


async def test_the_hit_header_and_the_way_past_the_cache(loopback):
    async with loopback(cache_bytes=1 << 20) as server:
        answers = [await server.ask("POST", INFER, BODY) for _ in range(2)]
        assert [headers["edgemodel-cache"] for _, headers, _ in answers] == ["miss", "hit"]
        assert answers[0][2] == answers[1][2]
        for wish in ("no-cache", "no-store", "max-age=0, No-Store"):
            _, headers, _ = await server.ask("POST", INFER, BODY, f"Cache-Control: {wish}\r\n")
            assert "edgemodel-cache" not in headers
        assert server.model.runs == 1 + 3
        assert server.sample("inference_cache_hits_total", model="m", version="1") == 1
        assert server.sample("inference_requests_total", model="m", version="1", protocol="http", code="200")


async def test_without_a_cache_there_is_no_header(loopback):
    async with loopback() as server:
        _, headers, _ = await server.ask("POST", INFER, BODY)
        assert "edgemodel-cache" not in headers


async def test_an_id_is_the_requests_own_even_if_the_answer_was_kept(loopback):
    async with loopback(cache_bytes=1 << 20) as server:
        await server.ask("POST", INFER, BODY)
        _, headers, body = await server.ask("POST", INFER, BODY.replace(b'"7"', b'"8"'))
        assert (headers["edgemodel-cache"], json.loads(body)["id"]) == ("hit", "8")


async def test_a_model_that_is_removed_takes_its_answers_along():
    metrics = Metrics()
    plane = DataPlane(metrics, cache=ResultCache(1 << 20, 0, metrics))
    request = InferenceRequest({"x": np.ones(2, np.float32)}, ("y",))
    for runs in (1, 1):  # a new model of the same name, version and digest begins with no answers
        model = Doubler()
        plane.add(model)
        for _ in range(2):
            await plane.infer(Call("http", "m"), lambda _: request, lambda response: response)
        assert model.runs == runs
        await plane.remove("m")
        assert metrics.registry.get_sample_value("inference_cache_bytes") == 0
    with pytest.raises(NotFound):
        await plane.infer(Call("http", "m"), lambda _: request, lambda response: response)


async def test_liveness_is_the_watchdogs(loopback):
    async with loopback() as server:
        assert (await server.ask("GET", "/v2/health/live"))[::2] == (200, b'{"live":true}')
        server.dataplane.watchdog.alive = False
        assert (await server.ask("GET", "/v2/health/live"))[::2] == (503, b'{"live":false}')


async def test_a_run_under_way_is_what_the_watchdog_sees(loopback):
    async with loopback() as server:
        server.model.go.clear()
        pending = asyncio.create_task(server.ask("POST", INFER, BODY))
        await until(server.model.entered.is_set)
        (run,) = server.dataplane.slot("m", None).running
        assert run.thread != 0
        server.dataplane.watchdog.look(server.dataplane.slots)
        assert server.dataplane.watchdog.alive
        server.model.go.set()
        assert (await pending)[0] == 200
        assert server.dataplane.slot("m", None).longest_run > 0


class Laborious(Doubler):
    """Takes a millisecond of the processor."""

    def run(self, outputs, inputs):
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass
        return super().run(outputs, inputs)


async def time_of_runs(plane, count=40):
    """Return the seconds from the first run's beginning to the last one's, and those computed meanwhile."""
    request = InferenceRequest({"x": np.ones(2, np.float32)}, ("y",))
    calls = [Call("http", "m") for _ in range(count)]
    await asyncio.gather(*(plane.infer(call, lambda _: request, lambda response: response) for call in calls))
    first, *_, last = sorted(calls, key=lambda call: call.began)
    return last.began - first.began, sum(call.computed for call in calls if call is not last)


@pytest.mark.parametrize("inline", [False, True])
async def test_a_hot_machine_rests_after_runs_and_still_answers_all(inline):
    plane = DataPlane(Metrics())
    plane.add(Laborious(), Plan(inline=inline))
    plane.slow_down(0.25)
    spent, computed = await time_of_runs(plane)
    # A quarter of the time and no more; a busy machine only ever adds to the rest.
    assert spent >= 3.5 * computed
    await plane.remove("m")


async def test_a_model_that_is_added_while_it_is_hot_rests_too():
    plane = DataPlane(Metrics())
    plane.slow_down(0.5)
    plane.add(Laborious(), Plan(inline=True))
    spent, computed = await time_of_runs(plane)
    assert spent >= 1.7 * computed
    await plane.remove("m")


async def test_exemplars_go_to_scrapers_that_ask_for_openmetrics(loopback):
    async with loopback(exemplars=True) as server:
        await server.ask("POST", INFER, BODY, f"traceparent: {TRACEPARENT}\r\n")
        await server.ask("POST", INFER, BODY, f"traceparent: {TRACEPARENT[:-1]}0\r\n")  # not sampled
        accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n"
        _, headers, body = await server.ask("GET", "/metrics", headers=accept)
        assert headers["content-type"].startswith("application/openmetrics-text")
        assert body.count(f'# {{trace_id="{TRACE}"}}'.encode()) == 1
        _, headers, body = await server.ask("GET", "/metrics")
        assert headers["content-type"].startswith("text/plain")
        assert TRACE.encode() not in body


async def test_without_exemplars_nobody_gets_openmetrics(loopback):
    async with loopback() as server:
        await server.ask("POST", INFER, BODY, f"traceparent: {TRACEPARENT}\r\n")
        _, headers, body = await server.ask(
            "GET", "/metrics", headers="Accept: application/openmetrics-text\r\n"
        )
        assert headers["content-type"].startswith("text/plain")
        assert TRACE.encode() not in body
