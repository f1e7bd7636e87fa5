"""The real process and gRPC clients that mean no good: it answers, leaves them, and its memory stays what it was."""

import asyncio
import gzip

import pytest

from inference_server.grpc.messages import frame_message
from inference_server.http2 import frames as h2
from inference_server.http2.frames import ErrorCode
from inference_server.proto import inference_pb2 as pb
from tests.server.onnx_models import mlp, save
from tests.server.process import running
from tests.unit.server.conftest import Client
from tests.unit.server.http2_client import INFER, Http2Client, request_headers

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

GROWTH_BYTES = 8_000_000


def tensor(raw=bytes(256), **changes):
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[raw] if raw is not None else [])
    fields = {"name": "x", "datatype": "FP32", "shape": [1, 64], **changes}
    request.inputs.add(**fields)
    return frame_message(request.SerializeToString())


def bomb():
    packed = gzip.compress(bytes(50_000_000))
    return b"\x01" + len(packed).to_bytes(4, "big") + packed


GOOD = tensor()
BAD = [
    (b"", 3),
    (b"\0\0\0", 3),
    (b"\0\xff\xff\xff\xff", 8),
    (GOOD + GOOD, 3),
    (frame_message(b"\xff" * 500), 3),
    (frame_message(b"\x3a\xff\xff\xff\x0f" + bytes(100_000)), 3),
    (tensor(name="z"), 3),
    (tensor(datatype="BYTES"), 3),
    (tensor(shape=[1, 63]), 3),
    (tensor(shape=[-1, 64]), 3),
    (tensor(shape=[2**62, 64]), 3),
    (tensor(shape=[1] * 10_000), 3),
    (tensor(raw=bytes(255)), 3),
    (tensor(raw=None), 3),
    (tensor(raw=None, contents=pb.InferTensorContents(int64_contents=[1] * 64)), 3),
    (bomb(), 8),
]


@pytest.fixture
def server(tmp_path):
    with running("--max-body-bytes", 1_000_000, model=save(mlp(), tmp_path / "m.onnx")) as server:
        server.event("ready")
        yield server


async def connect(server):
    client = Http2Client(Client(*await asyncio.open_connection("127.0.0.1", server.port)))
    await client.send(h2.PREFACE + h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 1 << 20}))
    return client


async def served(server):
    client = await connect(server)
    answer = await client.answer(await client.call(INFER, GOOD))
    client.leave()
    return answer.status == 0


async def test_thousands_of_bad_calls_leave_no_trace(server):
    client = await connect(server)

    async def all_of_them():
        for message, status in BAD:
            answer = await client.answer(await client.call(INFER, message, grpc_encoding="gzip"))
            assert answer.status == status, (message[:60], answer)

    for _ in range(30):  # until allocators and caches have their size
        await all_of_them()
    before = server.resident_bytes()
    for _ in range(120):
        await all_of_them()
    assert server.resident_bytes() - before < GROWTH_BYTES
    assert (await client.answer(await client.call(INFER, GOOD))).status == 0
    client.leave()
    assert not any("Traceback" in line for line in server.lines)


async def send_and_read_on(client, data):
    await client.send(data)
    while True:
        await client.frame()


async def test_requests_taken_back_again_and_again_end_the_connection_and_nothing_else(server):
    before = 0
    for round_ in range(12):
        if round_ == 7:  # until allocators have their size
            before = server.resident_bytes()
        client = await connect(server)
        pairs = [
            h2.frame(h2.HEADERS, h2.END_HEADERS, stream, request_headers(INFER))
            + h2.frame(h2.DATA, h2.END_STREAM, stream, GOOD)
            + h2.reset_frame(stream, ErrorCode.CANCEL)
            for stream in range(1, 10_001, 2)
        ]
        with pytest.raises((ConnectionError, EOFError)):
            await send_and_read_on(client, b"".join(pairs))
        assert await served(server)
    assert server.resident_bytes() - before < GROWTH_BYTES


async def test_calls_that_never_end_hold_what_they_sent_and_stop_nobody(server):
    assert await served(server)
    before = server.resident_bytes()
    clients = [await connect(server) for _ in range(20)]
    for client in clients:
        for _ in range(50):
            await client.call(INFER, GOOD[:50], ends=False)
        await client.send(h2.frame(h2.HEADERS, 0, client.next_stream, request_headers(INFER)))
    for _ in range(20):
        assert await served(server)
    assert server.resident_bytes() - before < GROWTH_BYTES
    for client in clients:
        client.leave()
