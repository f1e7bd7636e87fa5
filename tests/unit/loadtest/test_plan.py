"""Requests are made from what the server says of its model, and one is tried before the load begins."""

import json
from dataclasses import replace

import pytest

from edgemodel.errors import Stalled, Transient
from edgemodel.loadtest.body import Tensor
from edgemodel.loadtest.plan import METADATA_BYTES, Wanted, prepare
from edgemodel.loadtest.target import Target
from tests.simulators.model_server import METADATA, ModelServer, answer

WANTED = Wanted("m")


async def made(server, wanted=WANTED):
    return await prepare(Target.parse(server.url), wanted, 1.0)


def content(request):
    return request.partition(b"\r\n\r\n")[2]


async def test_random_requests_differ_and_one_was_tried():
    async with ModelServer() as server:
        requests = await made(server, replace(WANTED, distinct=5))
    assert len(set(requests)) == 5
    assert server.bodies == [content(requests[0])]
    assert json.loads(server.bodies[0])["inputs"][0]["shape"] == [1, 4]


async def test_zeros_are_one_request_with_the_shape_that_was_asked_for():
    async with ModelServer() as server:
        (request,) = await made(server, replace(WANTED, values="zeros", shapes={"x": (2, 4)}))
    assert json.loads(content(request))["inputs"][0]["data"] == [0.0] * 8


async def test_a_version_is_named_in_the_path():
    async with ModelServer() as server:
        await made(server, replace(WANTED, version="1.4"))
    assert [head.split()[1] for head in server.heads] == [
        "/v2/models/m/versions/1.4",
        "/v2/models/m/versions/1.4/infer",
    ]


async def test_binary_is_asked_for_both_ways():
    async with ModelServer() as server:
        (request, *_) = await made(server, replace(WANTED, binary=True))
    assert b"\r\nInference-Header-Content-Length: " in request
    assert b'"binary_data_output":true' in request


async def test_given_tensors_need_no_metadata():
    given = [[Tensor("x", "FP32", (1, 4), [1, 2, 3, 4])]]
    async with ModelServer() as server:
        server.metadata = b"none"
        (request,) = await made(server, replace(WANTED, values="given", given=given))
    assert json.loads(content(request))["inputs"][0]["data"] == [1, 2, 3, 4]


async def test_large_requests_are_few():
    async with ModelServer() as server:
        model = {**METADATA, "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 5_000_000]}]}
        server.metadata = json.dumps(model).encode()
        shape = {"x": (1, 5_000_000)}
        requests = await made(server, replace(WANTED, values="zeros", binary=True, shapes=shape))
    assert len(requests) == 1


async def test_what_the_server_refuses_is_said_in_its_words():
    async with ModelServer(lambda _: answer(b'{"error":"no such token"}', "400 Bad Request")) as server:
        with pytest.raises(Stalled, match=r"found HTTP 400: .*no such token.*--data FILE"):
            await made(server)


async def test_a_server_that_is_busy_may_be_asked_later():
    async with ModelServer(lambda _: answer(b"", "503 Service Unavailable")) as server:
        with pytest.raises(Transient, match="found HTTP 503"):
            await made(server)


async def test_no_answer_and_nobody_there_are_failures_of_the_world():
    async with ModelServer() as server:
        server.stalls = {0: 60.0}
        with pytest.raises(Transient, match="no answer within 1 s"):
            await made(server)
    with pytest.raises(Transient, match="Connection refused"):
        await made(server)


async def test_metadata_without_end_is_cut_off_and_refused():
    async with ModelServer() as server:
        server.metadata = b"[" + b"1," * METADATA_BYTES
        with pytest.raises(Stalled, match="expected a model's metadata"):
            await made(server)
