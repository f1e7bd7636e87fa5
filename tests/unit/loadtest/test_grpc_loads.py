"""By gRPC a load is made, counted and charged as by HTTP."""

import sys
from dataclasses import replace

import pytest

from edgemodel.errors import Stalled, Transient
from edgemodel.loadtest.body import Tensor
from edgemodel.loadtest.loop import Loop
from edgemodel.loadtest.plan import Wanted, prepare
from edgemodel.loadtest.result import Closed, Extent, Open
from edgemodel.loadtest.target import Target
from inference_server.proto import inference_pb2 as pb
from tests.simulators.certificates import loopback_tls
from tests.simulators.grpc_model_server import GrpcModelServer
from tests.simulators.model_server import ModelServer

pytestmark = pytest.mark.timeout(20)
WANTED = Wanted("m", values="zeros")


async def load(server, asked, extent, wanted=WANTED, **target):
    found = Target.parse(server.url, **target)
    requests = await prepare(found, wanted, 1.0)
    server.requests.clear()
    return await Loop(found, requests, asked, extent).run()


async def test_a_closed_loop_sends_so_many_and_no_more_on_a_connection_for_each_client():
    async with GrpcModelServer() as server:
        outcome = await load(server, Closed(4), Extent(0, 10, 100))
    assert len(server.requests) == outcome.answered == outcome.latency.count == 100
    assert server.connections == 4 + 2  # metadata, and the one that was tried
    assert not outcome.errors


async def test_an_open_loop_keeps_its_rate():
    async with GrpcModelServer() as server:
        outcome = await load(server, Open(200), Extent(0, 10, 100))
    assert outcome.answered == 100
    assert 0.45 <= outcome.seconds < 5


@pytest.mark.parametrize("connections", [1, 256])
async def test_a_stall_is_charged_for_everybody_whom_it_kept_waiting(connections):
    async with GrpcModelServer() as server:
        server.stalls = {20: 0.5}
        outcome = await load(server, Open(200, connections), Extent(0, 10, 200))
    assert outcome.answered == 200
    assert outcome.latency.percentile(0.75) > 0.1
    assert outcome.latency.largest >= 0.5


async def test_errors_are_counted_by_status_with_the_words_of_the_first():
    def reply(number):
        if number % 10 == 3:
            return (14, f"number {number}")
        return None if number % 10 == 7 else (0, "")

    async with GrpcModelServer() as server:
        target = Target.parse(server.url)
        requests = await prepare(target, WANTED, 1.0)
        server.requests.clear()
        server.reply = reply
        outcome = await Loop(target, requests, Closed(1), Extent(0, 10, 50)).run()
    assert outcome.errors == {"gRPC UNAVAILABLE": 5, "connection": 5}
    assert outcome.answered == outcome.latency.count == 40
    assert outcome.examples["gRPC UNAVAILABLE"] == "number 3"


async def test_no_answer_in_time_is_an_error_and_a_latency():
    async with GrpcModelServer() as server:
        server.stalls = {1: 60.0}
        target = Target.parse(server.url)
        requests = await prepare(target, WANTED, 1.0)
        outcome = await Loop(target, requests, Closed(2), Extent(0, 0.1, timeout=0.2)).run()
    assert outcome.errors == {"timeout": 2}
    assert outcome.percentiles["p50"] >= 0.2


async def test_tls_tokens_and_authorities(tmp_path):
    context, pem = loopback_tls(tmp_path)
    (tmp_path / "ca.pem").write_text(pem)
    async with GrpcModelServer(tls=context) as server:
        outcome = await load(
            server,
            Closed(2),
            Extent(0, 10, 20),
            ca_file=tmp_path / "ca.pem",
            token="secret",
            authority="m.vision",
        )
    assert outcome.answered == 20
    said = {(head[":scheme"], head[":authority"], head["authorization"]) for head in server.heads}
    assert said == {("https", "m.vision", "Bearer secret")}


async def test_random_requests_differ_and_hold_what_the_model_takes():
    async with GrpcModelServer() as server:
        requests = await prepare(
            Target.parse(server.url), Wanted("m", "1.4", shapes={"x": (2, 4)}, distinct=5), 1.0
        )
    assert len(set(requests)) == 5
    (tried,) = server.requests
    assert (tried.model_name, tried.model_version) == ("m", "1.4")
    assert [(one.name, one.datatype, list(one.shape)) for one in tried.inputs] == [("x", "FP32", [2, 4])]
    assert [len(raw) for raw in tried.raw_input_contents] == [32]


async def test_given_tensors_need_no_metadata():
    given = [[Tensor("x", "BYTES", (1,), ["ab"])]]
    async with GrpcModelServer() as server:
        await prepare(Target.parse(server.url), replace(WANTED, values="given", given=given), 1.0)
    assert [head[":path"] for head in server.heads] == ["/inference.GRPCInferenceService/ModelInfer"]
    assert server.requests[0].raw_input_contents[0] == b"\2\0\0\0ab"


@pytest.mark.parametrize(
    ("status", "raised", "words"),
    [
        (3, Stalled, "ModelInfer: expected an answer, found gRPC INVALID_ARGUMENT: no such token .*--data"),
        (14, Transient, "found gRPC UNAVAILABLE"),
    ],
)
async def test_what_the_server_refuses_is_said_in_its_words(status, raised, words):
    async with GrpcModelServer(lambda _: (status, "no such token")) as server:
        with pytest.raises(raised, match=words):
            await prepare(Target.parse(server.url), WANTED, 1.0)


async def test_metadata_that_is_none_is_refused():
    async with GrpcModelServer() as server:
        server.metadata = pb.ModelMetadataResponse(name="m")
        server.metadata.inputs.add(name="x", datatype="FP31", shape=[1])
        with pytest.raises(Stalled, match="expected a model's metadata"):
            await prepare(Target.parse(server.url), WANTED, 1.0)


async def test_a_server_of_http_alone_is_no_server_of_grpc():
    async with ModelServer() as server:
        url = server.url.replace("http", "grpc")
        with pytest.raises(Transient, match=r"no answer within|connection closed|not an answer by gRPC"):
            await prepare(Target.parse(url), WANTED, 0.5)


@pytest.mark.parametrize("missing", ["hpack", "google.protobuf.message"])
async def test_without_the_extra_it_says_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    for module in ("by_grpc", "grpc_connection"):
        monkeypatch.delitem(sys.modules, f"edgemodel.loadtest.{module}", raising=False)
    with pytest.raises(Stalled, match=r"gRPC needs .*: install edgemodel\[grpc\]"):
        await prepare(Target.parse("grpc://127.0.0.1:1"), WANTED, 1.0)
