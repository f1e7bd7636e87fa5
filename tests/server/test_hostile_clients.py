"""The real process and clients that mean no good: it answers, cuts them off, and its memory stays what it was."""

import asyncio
import json

import pytest

from tests.server.onnx_models import mlp, save
from tests.server.process import ask, request, running

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

INFER = "/v2/models/m/infer"
GROWTH_BYTES = 8_000_000


def tensor(**changes):
    fields = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64, **changes}
    return json.dumps({"inputs": [fields]}).encode()


GOOD = tensor()
BAD = [
    b"",
    b"{",
    b"\xff" * 50,
    b"[" * 5000,
    b'{"inputs":' * 5000,
    b'{"inputs": [NaN]}',
    tensor(name="z"),
    tensor(datatype="BYTES"),
    tensor(shape=[1, 63]),
    tensor(shape=[-1, 64]),
    tensor(shape=[2**62, 64]),
    tensor(shape=[2**63, 64]),
    tensor(shape=[1] * 10_000),
    tensor(data=[1]),
    tensor(data=[None] * 64),
    tensor(data=["s" * 1000] * 64),
    tensor(data=[[[[[[1]]]]]]),
    tensor(data=[1e39] * 64),
    tensor(data=[10**30] * 64),
]


@pytest.fixture
def server(tmp_path):
    with running("--max-body-bytes", 1_000_000, model=save(mlp(), tmp_path / "m.onnx")) as server:
        server.event("ready")
        yield server


async def test_thousands_of_bad_requests_leave_no_trace(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

    async def all_of_them():
        for body in BAD:
            status, headers, answer = await request(reader, writer, "POST", INFER, body)
            expected = 200 if body == BAD[-1] else 400  # 10^30 is a number that FP32 holds
            assert (status, headers["connection"]) == (expected, "keep-alive"), (body[:60], answer)

    for _ in range(50):  # until allocators and caches have their size
        await all_of_them()
    before = server.resident_bytes()
    for _ in range(150):
        await all_of_them()
    assert server.resident_bytes() - before < GROWTH_BYTES
    writer.close()
    assert (await ask(server.port, "POST", INFER, GOOD))[0] == 200
    assert not any("Traceback" in line for line in server.lines)


async def flood(writer):
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def test_a_body_without_end_is_answered_then_cut_off(server):
    before = server.resident_bytes()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n" % INFER.encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 413 ")
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(flood(writer), 20)
    assert server.resident_bytes() - before < GROWTH_BYTES
    assert (await ask(server.port, "POST", INFER, GOOD))[0] == 200


async def test_clients_that_stall_do_not_stop_the_others(server):
    stalled = []
    for part in (b"", b"POST ", b"POST %s HTTP/1.1\r\nContent-Length: 100\r\n\r\n{" % INFER.encode()) * 50:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(part)
        stalled.append(writer)
    for _ in range(20):
        assert (await ask(server.port, "POST", INFER, GOOD))[0] == 200
    for writer in stalled:
        writer.transport.abort()
    assert (await ask(server.port, "GET", "/v2/health/live"))[0] == 200
