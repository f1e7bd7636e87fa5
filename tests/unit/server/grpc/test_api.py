"""Methods, statuses and deadlines of the gRPC services, through a connection."""

import gzip
import re
from pathlib import Path

import pytest

from inference_server import errors
from inference_server.grpc.api import CODES
from inference_server.grpc.messages import Code, frame_message
from inference_server.http2 import frames as h2
from inference_server.proto import health_pb2, inference_pb2, reflection_pb2
from tests.unit.server.conftest import until
from tests.unit.server.http2_client import CHECK, INFER, REFLECT, WATCH, Http2Client, infer_message

SERVICE = "/inference.GRPCInferenceService/"


async def ask(client, method, request, **headers):
    """One call; its status, its message, and the bytes of its answer."""
    answer = await client.answer(
        await client.call(method, frame_message(request.SerializeToString()), **headers)
    )
    return answer.status, answer.headers.get("grpc-message", ""), answer.data[5:]


async def test_what_is_true_of_server_and_model(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        pb = inference_pb2

        async def told(method, reply, **fields):
            status, message, data = await ask(
                client, SERVICE + method, getattr(pb, f"{method}Request")(**fields)
            )
            assert status == 0, message
            return reply.FromString(data)

        assert (await told("ServerLive", pb.ServerLiveResponse)).live
        assert (await told("ServerReady", pb.ServerReadyResponse)).ready
        assert (await told("ModelReady", pb.ModelReadyResponse, name="m")).ready
        assert (await told("ServerMetadata", pb.ServerMetadataResponse)).name == "edgemodel-inference-server"
        assert (await told("ModelMetadata", pb.ModelMetadataResponse, name="m")).inputs[0].name == "x"
        assert (
            await told("ModelConfig", pb.ModelConfigResponse, name="m", version="1")
        ).config.backend == "onnxruntime"
        for fields in ({}, {"name": "m"}):
            (one,) = (await told("ModelStatistics", pb.ModelStatisticsResponse, **fields)).model_stats
            assert one.name == "m"
        server.dataplane.draining = True
        assert not (await told("ServerReady", pb.ServerReadyResponse)).ready
        assert not (await told("ModelReady", pb.ModelReadyResponse, name="m")).ready


@pytest.mark.parametrize("name", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
async def test_another_model_is_not_found(loopback, name):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        for fields in ({"name": "w"}, {"name": "m", "version": "2"}):
            status, message, _ = await ask(
                client, SERVICE + name, getattr(inference_pb2, f"{name}Request")(**fields)
            )
            assert status == Code.NOT_FOUND
            assert "expected" in message


@pytest.mark.parametrize(
    "path",
    [
        SERVICE + "RepositoryIndex",
        SERVICE + "RepositoryModelLoad",
        SERVICE + "ModelStreamInfer",
        SERVICE + "SystemSharedMemoryStatus",
        "/nowhere",
        "/grpc.health.v1.Health/List",
    ],
)
async def test_what_this_server_does_not_do_is_unimplemented_at_once(loopback, path):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        answer = await client.answer(await client.call(path, ends=False))
        assert answer.status == Code.UNIMPLEMENTED
        assert answer.headers["grpc-message"]


async def test_an_inference_is_answered_and_counted(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        answer = await client.answer(await client.call(INFER, infer_message([1.5], id="a")))
        reply = inference_pb2.ModelInferResponse.FromString(answer.data[5:])
        assert (answer.status, reply.id, reply.model_name) == (0, "a", "m")
        assert list(reply.outputs[0].contents.fp32_contents) == [3.0]
        assert answer.headers["content-type"] == "application/grpc"
        labels = {"model": "m", "version": "1", "protocol": "grpc"}
        assert server.sample("inference_requests_total", code="200", **labels) == 1
        assert server.sample("inference_request_duration_seconds_count", **labels) == 1


async def test_a_compressed_request_is_opened(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        packed = gzip.compress(infer_message([1.5])[5:])
        message = b"\x01" + len(packed).to_bytes(4, "big") + packed
        assert (await client.answer(await client.call(INFER, message, grpc_encoding="gzip"))).status == 0
        refused = await client.answer(await client.call(INFER, message, grpc_encoding="zstd"))
        assert (refused.status, refused.headers["grpc-accept-encoding"]) == (12, "identity,deflate,gzip")


BAD = {
    "another model": (infer_message([1.0], model="w"), {}, Code.NOT_FOUND, ("", "", "404")),
    "another version": (infer_message([1.0], model_version="2"), {}, Code.NOT_FOUND, ("", "", "404")),
    "no message": (b"", {}, Code.INVALID_ARGUMENT, ("m", "1", "400")),
    "two messages": (infer_message([1.0]) * 2, {}, Code.INVALID_ARGUMENT, ("m", "1", "400")),
    "not protobuf": (frame_message(b"\xff" * 9), {}, Code.INVALID_ARGUMENT, ("m", "1", "400")),
    "invalid UTF-8": (frame_message(b"\x0a\x01\xff"), {}, Code.INVALID_ARGUMENT, ("m", "1", "400")),
    "a timeout that is none": (infer_message([1.0]), {"grpc_timeout": "soon"}, Code.INVALID_ARGUMENT, None),
    "another codec": (
        infer_message([1.0]),
        {"content_type": "application/grpc+json"},
        Code.UNIMPLEMENTED,
        None,
    ),
}


@pytest.mark.parametrize(("message", "headers", "code", "counted"), BAD.values(), ids=BAD)
async def test_bad_inferences_get_the_right_status(loopback, message, headers, code, counted):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        answer = await client.answer(await client.call(INFER, message, **headers))
        assert answer.status == code
        assert "Traceback" not in answer.headers["grpc-message"]
        assert server.model.runs == 0
        assert server.peers.held_bytes == 0
        if counted is not None:
            model, version, status = counted
            labels = {"model": model, "version": version, "protocol": "grpc", "code": status}
            assert server.sample("inference_requests_total", **labels) == 1
        assert (await client.answer(await client.call(INFER, infer_message([1.0])))).status == 0


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.InvalidRequest("no"), Code.INVALID_ARGUMENT),
        (errors.ExecutionFailed("broken"), Code.INTERNAL),
        (errors.NotReady("full"), Code.UNAVAILABLE),
        (ZeroDivisionError("a bug"), Code.INTERNAL),
    ],
)
async def test_what_goes_wrong_inside_has_a_status(loopback, failure, code):
    async with loopback() as server:
        server.model.failure = failure
        client = await Http2Client.connect(server)
        answer = await client.answer(await client.call(INFER, infer_message([1.0])))
        assert answer.status == code
        assert "a bug" not in answer.headers["grpc-message"]


def test_every_error_of_a_request_has_a_code():
    def below(kind):
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    assert {kind for kind in below(errors.RequestError) if kind.__module__ == errors.__name__} == set(CODES)


async def test_a_server_without_its_model_is_unavailable(loopback):
    async with loopback(loaded=False) as server:
        client = await Http2Client.connect(server)
        assert (
            await client.answer(await client.call(INFER, infer_message([1.0])))
        ).status == Code.UNAVAILABLE
        status, _, data = await ask(client, CHECK, health_pb2.HealthCheckRequest())
        assert status == 0
        assert health_pb2.HealthCheckResponse.FromString(data).status == 2


async def test_a_deadline_reaches_the_data_plane(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        server.model.go.clear()
        busy = await client.call(INFER, infer_message([1.0]))
        await until(server.model.entered.is_set)
        late = await client.call(INFER, infer_message([2.0]), grpc_timeout="1n")
        assert (await client.answer(late)).status == Code.DEADLINE_EXCEEDED
        server.model.go.set()
        assert (await client.answer(busy)).status == 0
        assert server.model.runs == 1


async def test_health_of_services(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        for name in ("", "inference.GRPCInferenceService"):
            _, _, data = await ask(client, CHECK, health_pb2.HealthCheckRequest(service=name))
            assert health_pb2.HealthCheckResponse.FromString(data).status == 1
        assert (await ask(client, CHECK, health_pb2.HealthCheckRequest(service="x")))[0] == Code.NOT_FOUND


async def test_a_watcher_hears_of_changes(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        stream = await client.call(WATCH)

        async def heard():
            data = (await client.until(h2.DATA, stream)).payload
            return health_pb2.HealthCheckResponse.FromString(data[5:]).status

        assert await heard() == 1
        server.dataplane.draining = True
        assert await heard() == 2
        unknown = await client.call(
            WATCH, frame_message(health_pb2.HealthCheckRequest(service="x").SerializeToString())
        )
        assert (await client.until(h2.DATA, unknown)).payload[-1] == 3
        # A watcher that sends no question gets an error in place of an answer.
        assert (await client.answer(await client.call(WATCH, b"\0"))).status == Code.INVALID_ARGUMENT


async def test_reflection_answers_question_by_question(loopback):
    pb = reflection_pb2
    async with loopback() as server:
        client = await Http2Client.connect(server)
        stream = await client.call(REFLECT, b"", ends=False)

        async def answer(**question):
            message = frame_message(pb.ServerReflectionRequest(**question).SerializeToString())
            # In two pieces, as a slow client's come.
            await client.send(
                h2.frame(h2.DATA, 0, stream, message[:7]) + h2.frame(h2.DATA, 0, stream, message[7:])
            )
            return pb.ServerReflectionResponse.FromString((await client.until(h2.DATA, stream)).payload[5:])

        services = (await answer(list_services="")).list_services_response.service
        assert "inference.GRPCInferenceService" in [service.name for service in services]
        by_symbol = await answer(file_containing_symbol="inference.ModelInferRequest.InferInputTensor")
        by_name = await answer(file_by_filename=inference_pb2.DESCRIPTOR.name)
        assert list(by_symbol.file_descriptor_response.file_descriptor_proto) == [
            inference_pb2.DESCRIPTOR.serialized_pb
        ]
        assert by_name.file_descriptor_response == by_symbol.file_descriptor_response
        for question in (
            {"file_containing_symbol": "nothing"},
            {"file_by_filename": "nothing.proto"},
            {"all_extension_numbers_of_type": "nothing"},
            {"file_containing_extension": pb.ExtensionRequest(containing_type="x", extension_number=1)},
            {},
        ):
            assert (await answer(**question)).error_response.error_code == Code.NOT_FOUND
        extensions = await answer(all_extension_numbers_of_type="inference.ModelInferRequest")
        assert extensions.all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"
        await client.send(h2.frame(h2.DATA, h2.END_STREAM, stream))
        assert (await client.answer(stream)).status == 0


@pytest.mark.parametrize("sent", [b"\0\0\0", frame_message(b"\xff"), b"\0\xff\xff\xff\xff"])
async def test_reflection_refuses_nonsense(loopback, sent):
    async with loopback(max_body_bytes=1 << 20) as server:
        client = await Http2Client.connect(server)
        answer = await client.answer(await client.call(REFLECT, sent))
        assert answer.status in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED)


def test_the_reference_names_every_status_that_an_error_has():
    page = (Path(__file__).parents[4] / "docs/reference/inference-grpc.md").read_text()
    table = page.partition("## Statuses")[2].partition("## Limits")[0]
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", table, flags=re.MULTILINE))
    assert named == {code.name for code in CODES.values()} - {
        "UNKNOWN"
    }  # that of the root, which nothing raises


async def test_trailers_say_whether_the_answer_was_kept(loopback):
    async with loopback(cache_bytes=1 << 20) as server:
        client = await Http2Client.connect(server)
        answers = [await client.answer(await client.call(INFER, infer_message([1, 2]))) for _ in range(2)]
        assert [answer.headers["edgemodel-cache"] for answer in answers] == ["miss", "hit"]
        past = await client.call(INFER, infer_message([1, 2]), **{"cache-control": "no-store"})
        assert "edgemodel-cache" not in (await client.answer(past)).headers
        assert server.model.runs == 2


async def test_liveness_is_the_watchdogs(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        server.dataplane.watchdog.alive = False
        _, _, data = await ask(client, SERVICE + "ServerLive", inference_pb2.ServerLiveRequest())
        assert not inference_pb2.ServerLiveResponse.FromString(data).live
