"""What is remembered of heads makes the same of a request as parsing does."""

import json

import pytest

from inference_server.http.heads import Heads
from inference_server.http.messages import Request

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: 4\r\n\r\n"
REQUEST = Request("POST", b"/v2/models/m/infer", {b"content-length": b"4"}, b"body")


@pytest.fixture
def heads():
    heads = Heads()
    heads.keep(HEAD + b"body", REQUEST)
    return heads


def test_a_known_head_gives_the_request_with_its_own_body(heads):
    assert heads.find(HEAD + b"next") == Request(
        "POST", b"/v2/models/m/infer", {b"content-length": b"4"}, b"next"
    )


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"bod",
        HEAD + b"body" + HEAD,
        HEAD,
        HEAD.replace(b"4", b"5") + b"bodyy",
        b"\r\n" + HEAD + b"body",
        HEAD[:-2],
        b"",
    ],
)
def test_anything_else_is_left_to_the_parser(heads, data):
    assert heads.find(data) is None


@pytest.mark.parametrize(
    ("data", "request_"),
    [
        (HEAD + b"body" + b"GET", REQUEST),
        (HEAD.replace(b"Length: 4", b"Length: 04") + b"body", Request("POST", b"/", {b"content-length": b"04"}, b"body")),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", Request("POST", b"/", {}, b"body")),
        (HEAD + b"body", Request("POST", b"/", {b"content-length": b"4", b"expect": b"100-continue"}, b"body")),
        (HEAD[:-4] + b"\r\nX: " + b"x" * 2000 + b"\r\n\r\nbody", REQUEST),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_not_kept(data, request_):
    heads = Heads()
    heads.keep(data, request_)
    assert heads.find(data) is None


def test_what_is_kept_is_bounded():
    heads = Heads()
    for number in range(10_000):
        heads.keep(b"GET /%d HTTP/1.1\r\n\r\n" % number, Request("GET", b"/%d" % number))
    assert len(heads._heads) <= 256
    assert heads.find(b"GET /9999 HTTP/1.1\r\n\r\n") == Request("GET", b"/9999")


BODIES = [
    json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [n]}]}).encode()
    for n in (4, 5)
]


def infer(body, more=b""):
    return b"POST /v2/models/m/infer HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (more, len(body)) + body


async def test_a_connection_answers_requests_with_known_heads_as_the_first(loopback):
    async with loopback() as server:
        client = await server.connect()
        for body, answer in zip(BODIES * 2, (8, 10) * 2, strict=True):
            await client.send(infer(body))
            assert json.loads((await client.receive())[2])["outputs"][0]["data"] == [answer]
        assert server.peers.held_bytes == 0


async def test_known_heads_in_the_middle_of_another_message_are_its_body(loopback):
    async with loopback() as server:
        client = await server.connect()
        known = infer(BODIES[0])
        await client.send(known)
        await client.receive()
        wrapped = infer(known)
        await client.send(wrapped[: -len(known)])
        await client.send(known)
        assert (await client.receive())[0] == 400  # no JSON
        await client.send(known)
        assert (await client.receive())[0] == 200


async def test_a_head_that_closes_is_not_kept(loopback):
    async with loopback() as server:
        for _ in range(2):
            client = await server.connect()
            await client.send(infer(BODIES[0], b"Connection: close\r\n"))
            assert (await client.receive())[1]["connection"] == "close"


async def test_a_body_beyond_what_all_may_hold_is_refused_whether_or_not_its_head_is_known(loopback):
    async with loopback() as server:
        client = await server.connect()
        await client.send(infer(BODIES[0]))
        await client.receive()
        server.peers.held_bytes = 1 << 40
        await client.send(infer(BODIES[1]))
        assert (await client.receive())[0] == 503
        assert server.peers.held_bytes == 1 << 40
