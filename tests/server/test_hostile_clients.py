"""The real process and clients that mean no good: it answers, cuts them off, and its memory stays what it was."""

import asyncio
import gzip
import json

import pytest
from backports import zstd

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


def binary(head, tail=b"", **headers):
    """A body with this much JSON in front, and its headers."""
    return head + tail, {"Inference-Header-Content-Length": len(head), **headers}


def sized(size, **changes):
    return tensor(**{"data": None, "parameters": {"binary_data_size": size}, **changes}).replace(
        b', "data": null', b""
    )


ROW = bytes(256)
ZEROS = bytes(900_000)
# With headers of their own; what is expected if not 400.
BAD_HEADERS = [
    (*binary(sized(256), ROW[:-1]), 400),
    (*binary(sized(256), ROW + b"x"), 400),
    (*binary(sized(255), ROW[:-1]), 400),
    (*binary(sized(-1), ROW), 400),
    (*binary(sized(2**62), ROW), 400),
    (*binary(sized(256.5), ROW), 400),
    (*binary(sized(256, shape=[2**62, 64]), ROW), 400),
    (*binary(sized(256, data=[1]), ROW), 400),
    (*binary(b"\xff\xfe", ROW), 400),
    (ROW, {"Inference-Header-Content-Length": 10**9}, 400),
    (ROW, {"Inference-Header-Content-Length": "-1"}, 400),
    (ROW[1:], {"Inference-Header-Content-Length": "0"}, 400),
    (GOOD, {"Content-Encoding": "gzip"}, 400),
    (gzip.compress(GOOD)[:-3], {"Content-Encoding": "gzip"}, 400),
    (gzip.compress(GOOD) + b"x", {"Content-Encoding": "gzip"}, 400),
    (zstd.compress(GOOD)[:-3], {"Content-Encoding": "zstd"}, 400),
    (GOOD, {"Content-Encoding": "br"}, 415),
    (gzip.compress(ZEROS * 2), {"Content-Encoding": "gzip"}, 413),
    (zstd.compress(ZEROS * 2), {"Content-Encoding": "zstd"}, 413),
    (zstd.compress(ZEROS), {"Content-Encoding": "zstd"}, 400),
    (ZEROS[:300_000], {}, 400),  # large enough to be read straight into its place
    (GOOD[:-1] + b', "outputs": [{"name": "z"}]}', {}, 400),
    (GOOD[:-1] + b', "parameters": {"timeout": -1}}', {}, 400),
    (GOOD[:-1] + b', "parameters": {"sequence_id": 1}}', {}, 400),
]


@pytest.fixture
def server(tmp_path):
    with running("--max-body-bytes", 1_000_000, model=save(mlp(), tmp_path / "m.onnx")) as server:
        server.event("ready")
        yield server


async def test_ten_thousand_bad_requests_leave_no_trace_and_harm_nobody(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    sent, answered = 0, 0

    async def all_of_them():
        nonlocal sent
        for body in BAD:
            status, headers, answer = await request(reader, writer, "POST", INFER, body)
            expected = 200 if body == BAD[-1] else 400  # 10^30 is a number that FP32 holds
            assert (status, headers["connection"]) == (expected, "keep-alive"), (body[:60], answer)
        for body, more, expected in BAD_HEADERS:
            status, _, answer = await request(reader, writer, "POST", INFER, body, more)
            assert (status, "error" in json.loads(answer)) == (expected, True), (body[:60], more, answer)
        sent += len(BAD) + len(BAD_HEADERS)

    async def good_ones():
        nonlocal answered
        while True:
            assert (await ask(server.port, "POST", INFER, GOOD))[0] == 200
            answered += 1
            await asyncio.sleep(0.05)

    good = asyncio.create_task(good_ones())
    for _ in range(40):  # until allocators and caches have their size
        await all_of_them()
    before = server.resident_bytes()
    while sent < 10_000:
        await all_of_them()
    assert server.resident_bytes() - before < GROWTH_BYTES
    assert answered > 10
    assert not good.done()
    good.cancel()
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
