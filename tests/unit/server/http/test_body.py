"""Large bodies: read into their place, aligned, charged before they are held, and given up with their connection."""

import asyncio
import json

import numpy as np
import pytest

from inference_server.errors import NotReady
from inference_server.http.body import GRANT_BYTES, LARGE_BYTES, LargeBody
from inference_server.http.peers import BODIES_IN_MEMORY
from tests.unit.server.conftest import until

# How a loop takes to another way of reading midway is its own.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

MAX_BODY = 8 * 1024 * 1024
COUNT = 700_000  # 2.8 MB of float32, more than a step
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body, length=None, headers=""):
    size = len(body) if length is None else length
    return (
        f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {size}\r\n\r\n".encode()
        + body
    )


def binary(count=COUNT, padding=0):
    """A request with binary data, and where that begins."""
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [count],
                    "parameters": {"binary_data_size": 4 * count},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    head += b" " * padding
    return head + np.arange(count, dtype=np.float32).tobytes(), len(head)


def doubled(headers, body):
    length = int(headers["inference-header-content-length"])
    assert json.loads(body[:length])["outputs"][0]["parameters"]["binary_data_size"] == len(body) - length
    return np.frombuffer(body[length:], np.float32)


@pytest.mark.parametrize("padding", [0, 13, 37])
async def test_a_large_tensor_lies_aligned_where_it_was_received(loopback, padding):
    async with loopback(max_body_bytes=MAX_BODY) as server:
        client = await server.connect()
        body, length = binary(padding=padding)
        given = []
        server.model.taken = given.append
        await client.send(post(body, headers=f"Inference-Header-Content-Length: {length}\r\n") + LIVE)
        status, headers, answer = await client.receive()
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        assert np.array_equal(doubled(headers, answer), 2 * np.arange(COUNT, dtype=np.float32))
        (array,) = given
        assert array.ctypes.data % 64 == 0
        assert not array.flags.owndata
        assert (await client.receive())[
            0
        ] == 200  # the next request, sent with the first, is not lost in its body
        del given[:], array
        assert server.peers.held_bytes == 0


async def test_a_large_body_may_come_in_any_pieces_and_more_requests_after_it(loopback):
    async with loopback(max_body_bytes=MAX_BODY) as server:
        client = await server.connect()
        body, length = binary(count=100_000)
        head = f"Inference-Header-Content-Length: {length}\r\n"
        for piece in (1, 70_000, 399_999):
            raw = post(body, headers=head)
            for start in range(0, len(raw), piece if piece > 1 else len(raw) - 1):
                await client.send(raw[start : start + (piece if piece > 1 else len(raw) - 1)])
            status, headers, answer = await client.receive()
            assert status == 200
            assert doubled(headers, answer)[-1] == 2 * 99_999
        await client.send(LIVE)
        assert (await client.receive())[0] == 200


async def test_a_large_body_of_json_is_read_too(loopback):
    async with loopback(max_body_bytes=MAX_BODY) as server:
        client = await server.connect()
        values = [0.5] * 100_000
        body = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(values)], "data": values}]}
        ).encode()
        assert len(body) > LARGE_BYTES
        await client.send(post(body, headers="Connection: close\r\n"))
        status, headers, answer = await client.receive()
        assert (status, headers["connection"]) == (200, "close")
        assert json.loads(answer)["outputs"][0]["data"] == [1.0] * 100_000
        assert await client.closed()


async def test_what_was_announced_and_not_sent_is_not_charged(loopback):
    async with loopback(max_body_bytes=MAX_BODY) as server:
        clients = [await server.connect() for _ in range(3 * BODIES_IN_MEMORY)]
        for client in clients:
            await client.send(post(b"x" * 1000, MAX_BODY))
        await until(lambda: server.peers.held_bytes == len(clients) * GRANT_BYTES)
        assert server.peers.held_bytes <= BODIES_IN_MEMORY * MAX_BODY
        for client in clients:
            client.writer.transport.abort()
        await until(lambda: server.peers.held_bytes == 0)


async def test_large_bodies_in_memory_are_capped_over_all_connections(loopback):
    async with loopback(max_body_bytes=MAX_BODY) as server:
        held = [await server.connect() for _ in range(BODIES_IN_MEMORY)]
        for client in held:
            await client.send(post(b"x" * (MAX_BODY - 1), MAX_BODY))
        await until(lambda: server.peers.held_bytes == BODIES_IN_MEMORY * MAX_BODY)
        late = await server.connect()
        await late.send(post(b"x" * 1000, MAX_BODY))
        status, headers, answer = await late.receive()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert "too many large requests" in json.loads(answer)["error"]
        for client in held:
            client.writer.transport.abort()
        await until(lambda: server.peers.held_bytes == 0)


async def test_a_body_that_finds_no_more_memory_on_its_way_is_refused(loopback):
    async with loopback(max_body_bytes=MAX_BODY) as server:
        client = await server.connect()
        await client.send(post(b"x" * 1000, MAX_BODY))
        await until(lambda: server.peers.held_bytes == GRANT_BYTES)
        server.peers.held_bytes += BODIES_IN_MEMORY * MAX_BODY - GRANT_BYTES  # the others have it all
        await client.send(b"x" * GRANT_BYTES)
        assert (await client.receive())[0] == 503
        assert server.peers.held_bytes == BODIES_IN_MEMORY * MAX_BODY - GRANT_BYTES


async def test_a_client_that_leaves_halfway_leaves_nothing(loopback):
    async with loopback(max_body_bytes=MAX_BODY) as server:
        for end in ("abort", "write_eof"):
            client = await server.connect()
            await client.send(post(b"x" * 3_000_000, MAX_BODY))
            await until(lambda: server.peers.held_bytes >= 3_000_000)
            getattr(client.writer.transport, end)()
            await until(lambda: not server.peers.connections)
            assert server.peers.held_bytes == 0


async def test_a_peer_that_stalls_in_a_large_body_is_overdue(loopback):
    async with loopback(max_body_bytes=MAX_BODY) as server:
        client = await server.connect()
        await client.send(post(b"x" * 1000, MAX_BODY))
        await until(lambda: server.peers.held_bytes == GRANT_BYTES)
        (connection,) = server.peers.connections
        now = asyncio.get_running_loop().time()
        assert not connection.overdue(now + 20)
        assert connection.overdue(now + 40)


async def test_expect_continue_before_a_large_body(loopback):
    async with loopback(max_body_bytes=MAX_BODY) as server:
        client = await server.connect()
        body, length = binary()
        raw = post(body, headers=f"Inference-Header-Content-Length: {length}\r\nExpect: 100-continue\r\n")
        head, _, rest = raw.partition(b"\r\n\r\n")
        await client.send(head + b"\r\n\r\n")
        assert b"100 Continue" in await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 10)
        await client.send(rest)
        assert (await client.receive())[0] == 200


async def test_no_room_of_that_size_is_said():
    with pytest.raises(NotReady, match="no memory for a body of this size"):
        LargeBody(1 << 60, 0, lambda count: None)
