"""The data plane without any protocol: counting, readiness, and how many compute at a time."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from inference_server.engine.plan import Plan
from inference_server.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
)
from inference_server.messages import Call, GoldenResult, InferenceRequest
from inference_server.serving.dataplane import DataPlane
from inference_server.serving.result_cache import ResultCache
from inference_server.telemetry.metrics import Metrics
from inference_server.tensors import check_shape
from tests.unit.server.conftest import Doubler, until


def decode(metadata):
    return InferenceRequest({"x": np.ones(1, np.float32)}, ("y",), "id")


def encode(response):
    return response


@pytest.fixture
def plane():
    plane = DataPlane(Metrics())
    plane.add(Doubler())
    return plane


def sample(plane, name, **labels):
    return plane.metrics.registry.get_sample_value(name, labels)


async def test_an_answer_names_model_version_and_id(plane):
    response = await plane.infer(Call("grpc", "m", None), decode, encode)
    assert (response.model_name, response.model_version, response.id) == ("m", "1", "id")
    ((spec, array),) = response.outputs
    assert (spec.name, array.tolist()) == ("y", [2.0])
    labels = {"model": "m", "version": "1"}
    assert sample(plane, "inference_requests_total", **labels, protocol="grpc", code="200") == 1
    assert sample(plane, "inference_request_duration_seconds_count", **labels, protocol="grpc") == 1
    assert sample(plane, "inference_compute_duration_seconds_count", **labels) == 1
    assert sample(plane, "inference_inflight_requests", **labels) == 0


async def test_a_loaded_model_shows_in_the_gauges(plane):
    labels = {"model": "m", "version": "1"}
    assert sample(plane, "inference_model_load_duration_seconds", **labels) == 0.5
    assert sample(plane, "inference_model_memory_bytes", **labels) == 4096
    assert sample(plane, "inference_model_info", **labels, digest="sha256:" + "d" * 64) == 1


@pytest.mark.parametrize(
    ("name", "version", "code", "labels"),
    [("q", None, "404", {"model": "", "version": ""}), ("m", "2", "404", {"model": "", "version": ""})],
)
async def test_an_unknown_name_never_becomes_a_label(plane, name, version, code, labels):
    with pytest.raises(NotFound):
        await plane.infer(Call("http", name, version), decode, encode)
    assert sample(plane, "inference_requests_total", **labels, protocol="http", code=code) == 1


async def test_a_refused_decode_is_counted_and_not_computed(plane):
    def refuse(metadata):
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        await plane.infer(Call("http", "m", "1"), refuse, encode)
    labels = {"model": "m", "version": "1"}
    assert sample(plane, "inference_requests_total", **labels, protocol="http", code="400") == 1
    assert sample(plane, "inference_compute_duration_seconds_count", **labels) == 0


async def test_a_bug_becomes_a_500_without_detail(plane, caplog):
    with pytest.raises(ExecutionFailed, match="internal error"):
        await plane.infer(Call("http", "m", "1"), lambda metadata: 1 / 0, encode)
    assert "ZeroDivisionError" in caplog.text


async def test_memory_that_runs_out_while_decoding_is_no_bug(plane):
    def exhaust(metadata):
        raise MemoryError

    with pytest.raises(NotReady, match="out of memory"):
        await plane.infer(Call("http", "m", "1"), exhaust, encode)


async def test_no_model_no_answer():
    plane = DataPlane(Metrics())
    plane.announce("m", "1")
    assert not plane.ready
    with pytest.raises(NotReady, match="being loaded"):
        await plane.infer(Call("http", "m", "1"), decode, encode)
    with pytest.raises(NotReady):
        plane.slot("m", None)


async def test_no_more_than_the_threads_compute_at_a_time():
    plane = DataPlane(Metrics())
    model = Doubler()
    model.go.clear()
    plane.add(model, Plan(sessions=2))
    tasks = [asyncio.create_task(plane.infer(Call("http", "m", None), decode, encode)) for _ in range(5)]
    await until(lambda: model.runs == 2)
    assert sample(plane, "inference_inflight_requests", model="m", version="1") == 5
    assert model.runs == 2
    model.go.set()
    await asyncio.gather(*tasks)
    assert model.runs == 5


async def test_decoded_inputs_in_memory_are_bounded_and_one_is_always_served():
    plane = DataPlane(Metrics(), decoded_bytes=6)
    model = Doubler()
    model.go.clear()
    plane.add(model)
    first = asyncio.create_task(plane.infer(Call("http", "m", None), decode, encode))
    await until(lambda: model.runs == 1)
    with pytest.raises(NotReady, match="too many large requests"):
        await plane.infer(Call("http", "m", None), decode, encode)
    model.go.set()
    await first

    def large(metadata):
        return InferenceRequest({"x": np.ones(9, np.float32)}, ("y",))

    await plane.infer(Call("http", "m", None), large, encode)
    await plane.infer(Call("http", "m", None), decode, encode)


def named(name, version="1"):
    model = Doubler()
    model.metadata = replace(Doubler.metadata, name=name, version=version)
    return model


async def test_several_models_are_served_side_by_side():
    plane = DataPlane(Metrics())
    for name in ("a", "b"):
        plane.announce(name, "1")
    plane.add(named("a"))
    assert not plane.ready
    assert plane.model_ready("a", None)
    assert not plane.model_ready("b", None)
    plane.add(named("b", "2"), golden=GoldenResult("Pass", 1, 1))
    assert plane.ready
    assert plane.names == ("a", "b")
    response = await plane.infer(Call("http", "b", "2"), decode, encode)
    assert (response.model_name, response.model_version) == ("b", "2")
    assert sample(plane, "inference_requests_total", model="b", version="2", protocol="http", code="200") == 1
    assert plane.golden("b", None).outcome == "Pass"
    with pytest.raises(NotFound, match="expected one of 'a', 'b'"):
        await plane.infer(Call("http", "c"), decode, encode)
    with pytest.raises(ValueError, match="remove it first"):
        plane.add(named("a"))
    await plane.close()


async def test_a_model_that_is_removed_ends_what_it_has_and_is_forgotten():
    plane = DataPlane(Metrics())
    model, other = named("a"), named("b")
    model.go.clear()
    plane.add(model)
    plane.add(other)
    asked = asyncio.create_task(plane.infer(Call("http", "a"), decode, encode))
    await until(lambda: model.runs == 1)
    removing = asyncio.create_task(plane.remove("a"))
    await asyncio.sleep(0)
    with pytest.raises(NotFound):
        await plane.infer(Call("http", "a"), decode, encode)
    assert not removing.done()
    model.go.set()
    assert (await asked).model_name == "a"
    await removing
    await plane.remove("a")
    assert sample(plane, "inference_model_info", model="a", version="1", digest=model.digest) is None
    assert (await plane.infer(Call("http", "b"), decode, encode)).model_name == "b"
    plane.add(named("a", "2"))
    assert (await plane.infer(Call("http", "a"), decode, encode)).model_version == "2"
    await plane.close()


async def test_a_requests_own_timeout_and_its_calls_deadline_both_hold(plane):
    def hurried(metadata):
        return InferenceRequest({"x": np.ones(1, np.float32)}, ("y",), timeout=-1.0)

    with pytest.raises((DeadlineExceeded, Overloaded)):
        await plane.infer(Call("http", "m"), hurried, encode)
    with pytest.raises(DeadlineExceeded):
        await plane.infer(Call("grpc", "m", deadline=time.monotonic() - 1), decode, encode)
    labels = {"model": "m", "version": "1"}
    assert sample(plane, "inference_requests_total", **labels, protocol="grpc", code="504") == 1
    await plane.infer(Call("grpc", "m", deadline=time.monotonic() + 60), decode, encode)


async def test_waiting_and_computing_are_told_apart(plane):
    await plane.infer(Call("http", "m"), decode, encode)
    labels = {"model": "m", "version": "1"}
    assert sample(plane, "inference_queue_duration_seconds_count", **labels) == 1
    assert sample(plane, "inference_batch_size_sum", **labels) == 1
    assert sample(plane, "inference_compute_sessions", **labels) == 1


async def test_clients_see_how_a_model_is_computed():
    plane = DataPlane(Metrics())
    plane.add(Doubler(), Plan(batchable=True, batch_rows=8, inline=True, queue_delay=0.001))
    parameters = plane.metadata("m", None).parameters
    assert (parameters["max_batch_size"], parameters["inline"], parameters["batchable"]) == (8, True, True)
    assert parameters["max_queue_delay_microseconds"] == 1000


async def test_what_memory_has_no_room_for_is_refused_by_its_announced_shape():
    plane = DataPlane(Metrics(), decoded_bytes=4000)
    plane.add(Doubler(), Plan(batchable=True, row_bytes=8))
    (spec,) = plane.metadata("m", None).inputs
    assert check_shape([500], spec, "inputs[0]") == (500,)
    with pytest.raises(InvalidRequest, match=r"inputs\[0\].shape\[0\]: expected at most 500 rows"):
        check_shape([501], spec, "inputs[0]")
    with pytest.raises(InvalidRequest, match="expected at most 1000 elements"):
        check_shape([0, 2**40], replace(spec, shape=(-1, -1), most_rows=0), "inputs[0]")


async def test_of_several_processes_each_keeps_to_its_part_of_the_bounds():
    metrics = Metrics()
    cache = ResultCache(1000, 0, metrics)
    plane = DataPlane(metrics, decoded_bytes=64, most_waiting=3, cache=cache)
    plane.divide(2)
    slot = plane.add(Doubler(), Plan(processes=2))
    assert cache.most_bytes == 500
    assert slot.metadata.inputs[0].most_elements == 32 // 4
    assert slot.metadata.parameters["processes"] == 2
    held = plane._hold(InferenceRequest({"x": np.ones(5, np.float32)}, ("y",), ""))
    assert held == 20
    with pytest.raises(Overloaded, match="too many large requests"):
        plane._hold(InferenceRequest({"x": np.ones(4, np.float32)}, ("y",), ""))


PROMPT = Plan(inline=True, costs=((1, 0.00001),))


@pytest.fixture
def prompt():
    plane = DataPlane(Metrics())
    plane.add(Doubler(), PROMPT)
    return plane


def now(plane, decode=decode, version=None):
    return plane.infer_at_once("http", "m", version, decode, encode)


async def test_what_is_answered_at_once_is_answered_and_counted_alike(prompt):
    awaited = await prompt.infer(Call("http", "m"), decode, encode)
    once = now(prompt)
    assert (once.model_name, once.model_version, once.id) == ("m", "1", "id")
    assert [(spec, array.tolist()) for spec, array in once.outputs] == [
        (spec, array.tolist()) for spec, array in awaited.outputs
    ]
    labels = {"model": "m", "version": "1"}
    assert sample(prompt, "inference_requests_total", **labels, protocol="http", code="200") == 2
    assert sample(prompt, "inference_request_duration_seconds_count", **labels, protocol="http") == 2
    for what in ("compute_duration_seconds", "queue_duration_seconds", "batch_size"):
        assert sample(prompt, f"inference_{what}_count", **labels) == 2
    statistics = prompt.slot("m", None).statistics
    assert [getattr(statistics, what).count for what in ("success", "queue", "compute_infer")] == [2, 2, 2]


async def test_an_error_at_once_is_counted_once(prompt):
    def refuse(metadata):
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        now(prompt, refuse)
    labels = {"model": "m", "version": "1"}
    assert sample(prompt, "inference_requests_total", **labels, protocol="http", code="400") == 1
    assert prompt.slot("m", None).statistics.fail.count == 1


async def test_what_may_have_to_wait_or_is_told_of_is_not_answered_at_once(plane, prompt):
    assert now(plane) is None
    assert now(prompt, version="2") is None
    assert now(prompt, lambda metadata: replace(decode(metadata), timeout=1.0)) is None
    assert prompt.infer_at_once("http", "q", None, decode, encode) is None
    prompt.observer = object()
    assert now(prompt) is None
    metrics = Metrics()
    keeping = DataPlane(metrics, cache=ResultCache(1 << 20, 0, metrics))
    keeping.add(Doubler(), PROMPT)
    assert now(keeping) is None
    for each in (plane, prompt, keeping):
        assert (
            sample(each, "inference_requests_total", model="m", version="1", protocol="http", code="200")
            is None
        )
