"""Paths, methods and status codes of the protocol, over a real socket."""

import json

import pytest

from inference_server.errors import ExecutionFailed, InvalidRequest, NotFound, NotReady
from inference_server.http_paths import parse_target

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
