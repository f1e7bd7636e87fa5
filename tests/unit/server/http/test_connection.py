"""HTTP/1.1 on the wire: framing, order, caps, and peers that misbehave."""

import asyncio
import json
import re

import pytest

from inference_server.http.connection import HEAD_BYTES, LINGER_SECONDS
from inference_server.http.limits import FLOOR_BYTES_PER_SECOND, IDLE_SECONDS, REQUEST_SECONDS
from inference_server.http.messages import Response
from inference_server.http.peers import BODIES_IN_MEMORY
from tests.unit.server.conftest import until

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[4]}]}'
INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)


async def test_a_connection_is_kept_and_reused(loopback):
    async with loopback() as server:
        client = await server.connect()
        for _ in range(3):
            await client.send(LIVE)
            status, headers, body = await client.receive()
            assert (status, headers["connection"], headers["date"]) == (200, "keep-alive", "today")
            assert json.loads(body) == {"live": True}
        assert len(server.peers.connections) == 1


async def test_pipelined_requests_are_answered_in_order(loopback):
    async with loopback() as server:
        client = await server.connect()
        server.model.go.clear()
        await client.send(INFER + BODY + LIVE)
        await until(server.model.entered.is_set)
        await client.send(LIVE + b"GET /nowhere HTTP/1.1\r\n\r\n")
        server.model.go.set()
        answers = [await client.receive() for _ in range(4)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 404]
        assert json.loads(answers[0][2])["outputs"][0]["data"] == [8]


async def test_a_peer_that_pipelines_many_requests_does_not_hold_up_the_others(loopback):
    async with loopback() as server:
        greedy, other = await server.connect(), await server.connect()
        asked = 1000
        await greedy.send(LIVE * asked)
        await other.send(LIVE)
        assert (await other.receive())[0] == 200
        (busy,) = [connection for connection in server.peers.connections if connection.busy]
        assert 0 < len(busy._turns) < asked
        assert [(await greedy.receive())[0] for _ in range(asked)] == [200] * asked


class Talker:
    """A handler with much to say."""

    looks_at = frozenset()

    def __init__(self, prompt=False):
        self.asked = self.at_once_asked = 0
        self.prompt = prompt

    def at_once(self, request):
        if not self.prompt:
            return None
        self.at_once_asked += 1
        return self.answer()

    async def handle(self, request):
        return self.answer()

    def answer(self):
        self.asked += 1
        return Response(200, (b"x" * 50_000, b"y" * 50_000))


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_who_asks_and_never_reads_is_not_answered_without_end(loopback, prompt):
    async with loopback(max_body_bytes=1_000_000) as server:
        server.peers.handler = talker = Talker(prompt)
        client = await server.connect()
        for asked in range(1, 1000):
            await client.send(LIVE)
            await until(lambda asked=asked: talker.asked == asked or server.peers.held_bytes)
            if server.peers.held_bytes:
                break
        (connection,) = server.peers.connections
        assert talker.asked < 1000
        assert server.peers.held_bytes >= 64 * 1024  # unread answers count as bodies do
        answered = talker.asked
        assert talker.at_once_asked == (answered - 1 if prompt else 0)  # the first head is not known
        for _ in range(50):
            await client.send(LIVE)
        await until(lambda: connection.busy)
        assert talker.asked == answered
        for _ in range(answered + 50):
            assert (await client.receive())[0] == 200
        assert server.peers.held_bytes == 0


async def test_answers_that_nobody_reads_do_not_pile_up(loopback):
    async with loopback() as server:
        server.peers.handler = Talker()
        client = await server.connect()
        await client.send(LIVE * 2000)
        await until(
            lambda: any(connection._writing_since is not None for connection in server.peers.connections)
        )
        (connection,) = server.peers.connections
        assert connection._turns
        assert connection._transport.get_write_buffer_size() < 1 << 20


@pytest.mark.parametrize("size", [1, 7, 40])
async def test_a_request_may_come_in_pieces(loopback, size):
    async with loopback() as server:
        client = await server.connect()
        raw = INFER + BODY
        for start in range(0, len(raw), size):
            await client.send(raw[start : start + size])
        status, _, body = await client.receive()
        assert status == 200
        assert json.loads(body)["outputs"][0]["data"] == [8]


async def test_a_chunked_body_is_read(loopback):
    async with loopback() as server:
        client = await server.connect()
        chunks = b"".join(
            b"%x\r\n%s\r\n" % (len(BODY[i : i + 9]), BODY[i : i + 9]) for i in range(0, len(BODY), 9)
        )
        await client.send(
            b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunks
            + b"0\r\n\r\n"
        )
        assert (await client.receive())[0] == 200
        assert server.peers.held_bytes == 0


async def test_expect_continue_is_answered_before_the_body(loopback):
    async with loopback() as server:
        client = await server.connect()
        await client.send(INFER[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert (
            await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 2)
            == b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        await client.send(BODY)
        assert (await client.receive())[0] == 200


async def test_head_has_the_headers_of_get_and_no_body(loopback):
    async with loopback() as server:
        client = await server.connect()
        await client.send(b"HEAD /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = await asyncio.wait_for(client.reader.read(), 2)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert int(re.search(rb"Content-Length: (\d+)\r\n", head)[1]) > 60
        assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_line", "headers", "kept"),
    [
        (b"GET /v2 HTTP/1.1", b"", True),
        (b"GET /v2 HTTP/1.1", b"Connection: close\r\n", False),
        (b"GET /v2 HTTP/1.0", b"", False),
        (b"GET /v2 HTTP/1.0", b"Connection: keep-alive\r\n", True),
        (b"GET /v2 HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", False),
    ],
)
async def test_who_closes_is_said_and_done(loopback, request_line, headers, kept):
    async with loopback() as server:
        client = await server.connect()
        await client.send(request_line + b"\r\nHost: x\r\n" + headers + b"\r\n")
        status, answer, _ = await client.receive()
        assert (status, answer["connection"]) == (200, "keep-alive" if kept else "close")
        if kept:
            await client.send(LIVE)
            assert (await client.receive())[0] == 200
        else:
            assert await client.closed()


async def test_a_closing_server_closes_with_the_answer(loopback):
    async with loopback() as server:
        client = await server.connect()
        server.model.go.clear()
        await client.send(INFER + BODY)
        await until(server.model.entered.is_set)
        server.peers.closing = True
        server.model.go.set()
        status, headers, _ = await client.receive()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.closed()


async def test_a_half_closed_client_counts_as_gone(loopback):
    async with loopback() as server:
        client = await server.connect()
        server.model.go.clear()
        await client.send(INFER + BODY)
        await until(server.model.entered.is_set)
        client.writer.write_eof()
        assert await client.closed()
        labels = {"model": "m", "version": "1", "protocol": "http", "code": "499"}
        assert server.sample("inference_requests_total", **labels) == 1


async def test_a_client_that_left_is_not_computed_for(loopback):
    async with loopback() as server:
        server.model.go.clear()
        busy, gone = await server.connect(), await server.connect()
        await busy.send(INFER + BODY)
        await until(server.model.entered.is_set)
        await gone.send(INFER + BODY)
        await until(lambda: server.sample("inference_inflight_requests", model="m", version="1") == 2)
        gone.writer.transport.abort()
        labels = {"model": "m", "version": "1", "protocol": "http", "code": "499"}
        await until(lambda: server.sample("inference_requests_total", **labels) == 1)
        server.model.go.set()
        assert (await busy.receive())[0] == 200
        assert server.model.runs == 1
        assert server.peers.held_bytes == 0


REFUSED = [
    (b"GARBAGE\r\n\r\n", 400, "malformed HTTP request"),
    (b"GET /v2 HTTP/9.9\r\n\r\n", 400, "malformed HTTP request"),
    (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 400, "malformed HTTP request"),
    (b"GET /v2 HTTP/1.1\r\nHost x\r\n\r\n", 400, "malformed HTTP request"),
    (b"POST /v2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "malformed HTTP request"),
    (b"POST /v2 HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400, "malformed HTTP request"),
    (b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "malformed HTTP request"),
    (
        b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        400,
        "malformed HTTP request",
    ),
    (b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "malformed HTTP request"),
    (
        b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: 4097\r\n\r\n",
        413,
        "expected at most 4096 bytes, found 4097",
    ),
    (b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: 10737418240\r\n\r\n", 413, "found 10737418240"),
    (
        b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1001\r\n" + b"x" * 4097,
        413,
        "expected at most 4096 bytes, found more",
    ),
    (b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\n\r\n", 431, "expected at most 32768 bytes"),
    (b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES, 431, "expected at most 32768 bytes"),
    (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: a\r\n" % i for i in range(200)) + b"\r\n", 431, "at most 100"),
]


@pytest.mark.parametrize(("raw", "status", "message"), REFUSED)
async def test_what_cannot_be_read_is_refused_and_the_connection_closed(loopback, raw, status, message):
    async with loopback() as server:
        client = await server.connect()
        await client.send(raw)
        found, headers, body = await client.receive()
        assert found == status
        assert message in json.loads(body)["error"]
        assert headers["connection"] == "close"
        assert await client.closed()
        assert server.peers.held_bytes == 0
        assert server.model.runs == 0


async def test_a_refusal_comes_after_the_answers_before_it(loopback):
    async with loopback() as server:
        client = await server.connect()
        await client.send(LIVE + INFER + BODY + b"\x00\x01\r\n\r\n")
        assert [(await client.receive())[0] for _ in range(3)] == [200, 200, 400]
        assert await client.closed()


async def test_a_refused_inference_is_counted(loopback):
    async with loopback() as server:
        await server.ask("POST", "/v2/models/m/infer", b"x" * 4097)
        labels = {"model": "m", "version": "1", "protocol": "http", "code": "413"}
        assert server.sample("inference_requests_total", **labels) == 1


async def test_an_endless_trailer_is_cut_off(loopback):
    async with loopback() as server:
        client = await server.connect()
        await client.send(b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ")
        await until(lambda: server.peers.held_bytes == 1)
        for _ in range(9):
            await client.send(b"a" * 4096)
        assert (await client.receive())[0] == 431


async def test_bodies_in_memory_are_capped_over_all_connections(loopback):
    async with loopback() as server:
        head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n"
        held = [await server.connect() for _ in range(BODIES_IN_MEMORY)]
        for client in held:
            await client.send(head + b"x" * 4095)
        await until(lambda: server.peers.held_bytes == 4095 * BODIES_IN_MEMORY)
        late = await server.connect()
        await late.send(head + b"x" * 4095)
        status, headers, body = await late.receive()
        assert (status, headers["retry-after"]) == (503, "1")
        assert "too many large requests" in json.loads(body)["error"]
        for client in held:
            client.writer.transport.abort()
        await until(lambda: server.peers.held_bytes == 0)
        assert (await server.ask("POST", "/v2/models/m/infer", BODY))[0] == 200


async def test_who_is_overdue(loopback):
    async with loopback() as server:
        loop = asyncio.get_running_loop()
        client = await server.connect()
        await until(lambda: server.peers.connections)
        (connection,) = server.peers.connections
        now = loop.time()
        assert not connection.overdue(now + IDLE_SECONDS - 1)
        assert connection.overdue(now + IDLE_SECONDS + 1)
        await client.send(INFER)  # the head, then silence
        await until(lambda: connection.mid_request)
        now = loop.time()
        assert not connection.overdue(now + REQUEST_SECONDS - 1)
        assert connection.overdue(now + REQUEST_SECONDS + 1)
        assert REQUEST_SECONDS * FLOOR_BYTES_PER_SECOND > 0
        server.model.go.clear()
        await client.send(BODY)
        await until(server.model.entered.is_set)
        assert not connection.overdue(now + 10_000)  # it waits for us, not we for it
        server.model.go.set()
        assert (await client.receive())[0] == 200
        await client.send(b"\x00\r\n\r\n")
        assert (await client.receive())[0] == 400
        assert not connection.overdue(loop.time() + LINGER_SECONDS - 1)
        assert connection.overdue(loop.time() + LINGER_SECONDS + 1)


async def test_what_is_answered_at_once_by_a_closing_server_closes_too(loopback):
    async with loopback() as server:
        server.peers.handler = talker = Talker(prompt=True)
        client = await server.connect()
        for _ in range(2):
            await client.send(LIVE)
            assert (await client.receive())[1]["connection"] == "keep-alive"
        assert talker.at_once_asked == 1
        server.peers.closing = True
        await client.send(LIVE)
        assert (await client.receive())[1]["connection"] == "close"
        assert await client.closed()


async def test_idle_connections_close_on_request_and_busy_ones_stay(loopback):
    async with loopback() as server:
        idle, busy, halfway = [await server.connect() for _ in range(3)]
        server.model.go.clear()
        await busy.send(INFER + BODY)
        await halfway.send(INFER)
        await until(
            lambda: (
                server.model.entered.is_set() and sum(c.mid_request for c in server.peers.connections) == 1
            )
        )
        for connection in tuple(server.peers.connections):
            connection.close_if_idle()
        assert await idle.closed()
        server.model.go.set()
        assert (await busy.receive())[0] == 200
        await halfway.send(BODY)
        assert (await halfway.receive())[0] == 200


class Faulty:
    """A handler with a fault of its own."""

    looks_at = frozenset()

    def tensors_at(self, headers):
        return 0

    def at_once(self, request):
        return None

    async def handle(self, request):
        raise ZeroDivisionError

    def refuse(self, request, error):
        raise ZeroDivisionError


@pytest.mark.parametrize("sent", [LIVE, b"rubbish\r\n\r\n"])
async def test_who_waits_for_an_answer_that_cannot_be_written_gets_an_end(loopback, caplog, sent):
    async with loopback() as server:
        server.peers.handler = Faulty()
        client = await server.connect()
        await client.send(sent)
        assert await client.closed()
        assert "ZeroDivisionError" in caplog.text
