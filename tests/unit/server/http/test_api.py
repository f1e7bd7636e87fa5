"""Paths, methods and status codes of the protocol, over a real socket."""

import gzip
import json
import zlib
from contextlib import asynccontextmanager

import numpy as np
import pytest
from backports import zstd

from inference_server.engine.plan import Plan
from inference_server.errors import ExecutionFailed, InvalidRequest, NotFound, NotReady
from inference_server.http.messages import Request
from inference_server.http.paths import parse_target
from inference_server.messages import ModelMetadata
from inference_server.oip.documents import encode_config
from inference_server.tensors import TensorSpec

BODY = b'{"id":"7","inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]}]}'


@pytest.mark.parametrize(
    ("target", "status", "document"),
    [
        (
            "/v2",
            200,
            {
                "name": "edgemodel-inference-server",
                "version": "1",
                "extensions": ["binary_tensor_data", "model_configuration", "parameters", "statistics"],
            },
        ),
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready", 200, {"ready": True}),
        ("/v2/models/m/ready", 200, {"name": "m", "ready": True}),
        ("/v2/models/m/versions/1/ready", 200, {"name": "m", "ready": True}),
        ("/v2/models/%6d/ready?a=b", 200, {"name": "m", "ready": True}),
        ("http://x/v2/health/live", 200, {"live": True}),
        ("/v2/models/q", 404, {"error": "model 'q': expected 'm', the only model of this server"}),
        ("/v2/models/q/ready", 404, {"error": "model 'q': expected 'm', the only model of this server"}),
        ("/v2/models/m/versions/2", 404, {"error": "version '2' of model 'm': expected '1'"}),
        ("/v2/models/%ff", 400, {"error": "path: expected UTF-8"}),
    ],
)
async def test_get(loopback, target, status, document):
    async with loopback() as server:
        found, headers, body = await server.ask("GET", target)
        assert (found, json.loads(body)) == (status, document)
        assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("target", ["/v2/models/m", "/v2/models/m/versions/1"])
async def test_metadata(loopback, target):
    async with loopback() as server:
        status, _, body = await server.ask("GET", target)
        assert status == 200
        assert json.loads(body)["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1]}]


@pytest.mark.parametrize("target", ["/v2/models/m/infer", "/v2/models/m/versions/1/infer"])
async def test_infer(loopback, target):
    async with loopback() as server:
        status, _, body = await server.ask("POST", target, BODY, "Content-Type: application/json\r\n")
        assert status == 200
        assert json.loads(body) == {
            "model_name": "m",
            "model_version": "1",
            "id": "7",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [2, 4]}],
        }


@pytest.mark.parametrize(
    ("method", "target", "body", "headers", "status", "message"),
    [
        ("POST", "/v2/models/m/infer", b"{", "", 400, "body: expected JSON"),
        ("POST", "/v2/models/q/infer", BODY, "", 404, "model 'q'"),
        ("POST", "/v2/models/m/versions/2/infer", BODY, "", 404, "version '2' of model 'm'"),
        ("POST", "/v2/models/m/infer/", BODY, "", 404, "path '/v2/models/m/infer/'"),
        ("GET", "/", b"", "", 404, "path '/'"),
        ("GET", "/v2/models", b"", "", 404, "path '/v2/models'"),
        ("GET", "*", b"", "", 404, "path '*'"),
        ("GET", "/v2/models/m/infer", b"", "", 405, "method GET: expected POST"),
        ("DELETE", "/v2/models/m", b"", "", 405, "method DELETE: expected GET or HEAD"),
        ("POST", "/metrics", b"", "", 405, "method POST: expected GET or HEAD"),
        (
            "POST",
            "/v2/models/m/infer",
            BODY,
            "Content-Encoding: br\r\n",
            415,
            "Content-Encoding: expected one of zstd, gzip, deflate, or none; found 'br'",
        ),
        (
            "POST",
            "/v2/models/m/infer",
            BODY,
            "Inference-Header-Content-Length: 1e3\r\n",
            400,
            "Inference-Header-Content-Length: expected a number of bytes, found '1e3'",
        ),
    ],
)
async def test_a_bad_request_gets_its_code_and_a_message(
    loopback, method, target, body, headers, status, message
):
    async with loopback() as server:
        found, answer, raw = await server.ask(method, target, body, headers)
        assert found == status
        assert message in json.loads(raw)["error"]
        assert ("allow" in answer) == (status == 405)


async def test_nothing_is_served_before_the_model_is_loaded(loopback):
    async with loopback(loaded=False) as server:
        assert (await server.ask("GET", "/v2/health/live"))[0] == 200
        assert (await server.ask("GET", "/v2/health/ready"))[0] == 503
        assert (await server.ask("GET", "/v2/models/m/ready"))[0] == 503
        for method, target in (("GET", "/v2/models/m"), ("POST", "/v2/models/m/infer")):
            status, headers, body = await server.ask(method, target, BODY)
            assert (status, headers["retry-after"]) == (503, "1")
            assert json.loads(body) == {"error": "model 'm' is being loaded; try again shortly"}


async def test_a_draining_server_is_not_ready_and_still_answers(loopback):
    async with loopback() as server:
        server.dataplane.draining = True
        assert (await server.ask("GET", "/v2/health/live"))[0] == 200
        assert (await server.ask("GET", "/v2/health/ready"))[0] == 503
        assert (await server.ask("GET", "/v2/models/m/ready"))[0] == 503
        assert (await server.ask("POST", "/v2/models/m/infer", BODY))[0] == 200


@pytest.mark.parametrize(
    ("failure", "status", "message"),
    [
        (InvalidRequest("inputs: no"), 400, "inputs: no"),
        (NotReady("out of memory"), 503, "out of memory"),
        (ExecutionFailed("the model failed"), 500, "the model failed"),
        (ZeroDivisionError("secret detail"), 500, "internal error; the server's log has the details"),
    ],
)
async def test_a_failing_model_is_answered_without_a_traceback(loopback, failure, status, message):
    async with loopback() as server:
        server.model.failure = failure
        found, _, body = await server.ask("POST", "/v2/models/m/infer", BODY)
        assert (found, json.loads(body)) == (status, {"error": message})
        labels = {"model": "m", "version": "1", "protocol": "http", "code": str(status)}
        assert server.sample("inference_requests_total", **labels) == 1


async def test_an_escaped_slash_belongs_to_the_name():
    assert parse_target(b"/v2/models/a%2Fb").model == "a/b"
    with pytest.raises(NotFound):
        parse_target(b"/v2/models/a/b")


def binary(values, **parameters):
    """A body with binary data and its headers."""
    raw = np.array(values, np.float32).tobytes()
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": [len(values)],
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
    return head + raw, f"Inference-Header-Content-Length: {len(head)}\r\n"


async def test_binary_data_both_ways(loopback):
    async with loopback() as server:
        body, headers = binary([1, np.nan], binary_data_output=True)
        status, answer, raw = await server.ask("POST", "/v2/models/m/infer", body, headers)
        length = int(answer["inference-header-content-length"])
        assert (status, answer["content-type"]) == (200, "application/octet-stream")
        assert json.loads(raw[:length])["outputs"] == [
            {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
        ]
        assert str(np.frombuffer(raw[length:], np.float32)) == "[ 2. nan]"


async def test_a_binary_request_may_be_answered_in_json(loopback):
    async with loopback() as server:
        status, answer, raw = await server.ask("POST", "/v2/models/m/infer", *binary([1, np.nan]))
        assert (status, answer["content-type"]) == (200, "application/json")
        assert json.loads(raw)["outputs"][0]["data"] == [2, None]


async def test_a_raw_body_is_answered_with_raw_outputs(loopback):
    async with loopback() as server:
        raw = np.array([1, 2, 3], np.float32).tobytes()
        headers = "Inference-Header-Content-Length: 0\r\n"
        status, answer, body = await server.ask("POST", "/v2/models/m/infer", raw, headers)
        length = int(answer["inference-header-content-length"])
        assert (status, np.frombuffer(body[length:], np.float32).tolist()) == (200, [2, 4, 6])


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd.compress)]
)
async def test_an_encoded_body_is_decoded_and_bounded(loopback, encoding, compress):
    async with loopback(max_body_bytes=100_000) as server:
        header = f"Content-Encoding: {encoding}\r\n"
        status, _, body = await server.ask("POST", "/v2/models/m/infer", compress(BODY), header)
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [2, 4])
        raw, length = binary([1] * 20_000)
        noise = np.random.default_rng(0).random(20_000, np.float32).tobytes()
        raw = compress(raw[: -len(noise)] + noise)
        assert len(raw) > 16 * 1024  # one that is decoded in another thread
        assert (await server.ask("POST", "/v2/models/m/infer", raw, header + length))[0] == 200
        bomb = compress(bytes(5_000_000))
        status, _, body = await server.ask("POST", "/v2/models/m/infer", bomb, header)
        assert (status, "when decoded" in json.loads(body)["error"]) == (413, True)
        status, _, body = await server.ask("POST", "/v2/models/m/infer", compress(BODY)[:-1], header)
        assert status == 400
        labels = {"model": "m", "version": "1", "protocol": "http"}
        assert server.sample("inference_requests_total", **labels, code="413") == 1
        assert server.sample("inference_requests_total", **labels, code="400") == 1
        assert server.peers.held_bytes == 0


@pytest.mark.parametrize("count", [10, 2000, 20_000])
async def test_an_answer_is_encoded_for_who_asks_and_only_when_that_is_worth_it(loopback, count):
    async with loopback(max_body_bytes=1_000_000) as server:
        body, headers = binary([1] * count, binary_data_output=True)
        plain = await server.ask("POST", "/v2/models/m/infer", body, headers)
        assert "content-encoding" not in plain[1]
        status, answer, raw = await server.ask(
            "POST", "/v2/models/m/infer", body, headers + "Accept-Encoding: gzip;q=1, zstd;q=0.5\r\n"
        )
        assert status == 200
        if count == 10:
            assert "content-encoding" not in answer
        else:
            assert (answer["content-encoding"], answer["vary"]) == ("gzip", "accept-encoding")
            raw = gzip.decompress(raw)
        assert raw == plain[2]


async def test_what_the_request_says_about_itself_reaches_the_data_plane(loopback):
    async with loopback() as server:
        calls = []
        infer = server.dataplane.infer

        async def listen(call, decode, encode):
            calls.append((call.protocol, call.trace, call.cache))
            return await infer(call, decode, encode)

        server.dataplane.infer = listen
        trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
        for headers in (
            "",
            f"traceparent: {trace}\r\n",
            "Cache-Control: max-age=0, No-Store\r\n",
            "Cache-Control: no-cache\r\n",
            "Cache-Control: max-age=3\r\n",
        ):
            assert (await server.ask("POST", "/v2/models/m/infer", BODY, headers))[0] == 200
        assert calls == [
            ("http", "", True),
            ("http", trace, True),
            ("http", "", False),
            ("http", "", False),
            ("http", "", True),
        ]


async def test_statistics_count_what_was_answered_and_what_failed(loopback):
    async with loopback() as server:
        for body in (BODY, BODY, b"{"):
            await server.ask("POST", "/v2/models/m/infer", body)
        for target in ("/v2/models/m/stats", "/v2/models/m/versions/1/stats", "/v2/models/stats"):
            status, _, body = await server.ask("GET", target)
            (found,) = json.loads(body)["model_stats"]
            assert (status, found["name"], found["version"]) == (200, "m", "1")
            assert (found["inference_count"], found["execution_count"]) == (2, 2)
            sums = found["inference_stats"]
            assert {name: sums[name]["count"] for name in sums} == {
                "success": 2,
                "fail": 1,
                "queue": 2,
                "compute_input": 2,
                "compute_infer": 2,
                "compute_output": 2,
            }
            assert all(sums[name]["ns"] > 0 for name in ("success", "fail", "compute_infer"))
            assert found["last_inference"] > 1_700_000_000_000
            assert [(one["batch_size"], one["compute_infer"]["count"]) for one in found["batch_stats"]] == [
                (1, 2)
            ]


async def test_configuration_is_tritons(loopback):
    async with loopback() as server:
        status, _, body = await server.ask("GET", "/v2/models/m/config")
        document = json.loads(body)
        assert (status, document["backend"], document["max_batch_size"]) == (200, "onnxruntime", 0)
        assert document["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}]


def test_configuration_leaves_the_batch_axis_out_where_there_are_batches():
    model = ModelMetadata(
        "m", "v1", (TensorSpec("x", "BYTES", (-1, 4)),), (), {"batchable": True, "max_batch_size": 8}
    )
    document = json.loads(encode_config(model))
    assert (document["max_batch_size"], document["version_policy"]) == (8, {})
    assert document["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [4]}]


def at_once(server, body=BODY, target=b"/v2/models/m/infer", method="POST", **headers):
    headers = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return server.peers.handler.at_once(Request(method, target, headers, body))


@asynccontextmanager
async def prompt(loopback, **options):
    """A server whose model is computed at once, and a target that it knows."""
    async with loopback(loaded=False, **options) as server:
        server.dataplane.add(server.model, Plan(inline=True, costs=((2, 0.00001), (1000, 0.00002))))
        await server.ask("POST", "/v2/models/m/infer", BODY)
        yield server


async def both(server, body, **headers):
    """Status, headers and body of what is answered at once, and of what is answered."""
    lines = "".join(
        f"{name.replace('_', '-')}: {value.decode()}\r\n" for name, value in headers.items() if value
    )
    status, found, content = await server.ask("POST", "/v2/models/m/infer", body, lines)
    told = {name: found[name] for name in found.keys() - {"date", "connection", "content-length"}}
    response = at_once(server, body, **headers)
    named = {name.decode().lower(): value.decode().lower() for name, value in response.headers}
    named["content-type"] = response.content_type.decode()
    return (response.status, named, b"".join(response.body)), (status, told, content)


BINARY_HEAD = json.dumps(
    {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
MANY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [500], "data": [1 / 3] * 500}]}
).encode()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY, {}),
        (BODY, {"accept": b"*/*", "accept_encoding": b"gzip"}),
        (
            BINARY_HEAD + np.ones(2, "f4").tobytes(),
            {"inference_header_content_length": b"%d" % len(BINARY_HEAD)},
        ),
        (MANY, {"accept_encoding": b"deflate"}),
        (b'{"inputs":[]}', {}),
        (b"{", {}),
    ],
)
async def test_what_is_answered_at_once_is_answered_alike(loopback, body, headers):
    async with prompt(loopback, max_body_bytes=16_000) as server:
        once, awaited = await both(server, body, **headers)
        assert once == awaited
        label = {"model": "m", "version": "1", "protocol": "http", "code": str(once[0])}
        assert server.sample("inference_requests_total", **label) == 2 + (body == BODY or once[0] == 200)


async def test_a_failing_model_is_told_at_once_and_asked_once(loopback):
    async with prompt(loopback) as server:
        server.model.failure, runs = ExecutionFailed("the model failed"), server.model.runs
        assert at_once(server).status == 500
        assert server.model.runs == runs + 1


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "GET"},
        {"target": b"/v2/health/ready"},
        {"target": b"/v2/models/q/infer"},
        {"content_encoding": b"gzip"},
        {"traceparent": b"00-1"},
        {"cache_control": b"no-cache"},
        {"inference_header_content_length": b"1e3"},
        {"body": MANY + b" " * 16 * 1024},
        {"body": BODY.replace(b'"id":"7"', b'"parameters":{"timeout":1}')},
    ],
)
async def test_what_may_have_to_wait_is_not_answered_at_once(loopback, asked):
    async with prompt(loopback) as server:
        await server.ask("GET", "/v2/health/ready")
        assert at_once(server).status == 200
        assert at_once(server, **asked) is None
        assert (
            server.sample("inference_requests_total", model="m", version="1", protocol="http", code="200")
            == 2
        )


async def test_a_bug_at_once_is_left_to_who_tells_of_it(loopback):
    async with prompt(loopback) as server:
        server.model.failure = ZeroDivisionError()
        assert at_once(server) is None


async def test_a_model_that_is_not_cheap_is_not_answered_at_once(loopback):
    async with loopback() as server:
        await server.ask("POST", "/v2/models/m/infer", BODY)
        assert at_once(server) is None
