"""The real process and clients that mean no good: it answers, cuts them off, and its memory stays what it was.

``make bench NAME=hostile`` does the same a hundred thousand times, with good clients beside.
"""

import asyncio
import json

import pytest

from tests.server.bad_requests import BAD, BODY_BYTES, GOOD, GOOD_BINARY, INFER
from tests.server.onnx_models import mlp, save
from tests.server.process import PATIENCE, ask, running

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

GROWTH_BYTES = 8_000_000
BODY = GOOD.partition(b"\r\n\r\n")[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model = save(mlp(), tmp_path_factory.mktemp("model") / "m.onnx")
    with running("--max-body-bytes", BODY_BYTES, model=model) as server:
        server.event("ready")
        yield server
        assert not any("Traceback" in line for line in server.lines)


class Peer:
    """A client whose connection is opened anew whenever the server closes it."""

    def __init__(self, port):
        self.port = port
        self.writer = None

    async def send(self, content):
        """Send a whole request; return status and message."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(content)
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        answer = (await asyncio.wait_for(self.reader.readexactly(length), PATIENCE)).decode()
        if "connection: close" in head.lower():
            self._close()
        return int(head.split()[1]), answer

    def _close(self):
        if self.writer is not None:
            self.writer.close()
        self.writer = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self._close()


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
async def test_each_gets_its_status_and_the_name_of_what_is_wrong(server, bad):
    async with Peer(server.port) as peer:
        status, answer = await peer.send(bad.content)
        assert status == bad.status, answer
        (message,) = json.loads(answer).values()
        assert bad.words in message
        assert len(message) < 1000
        assert (await peer.send(GOOD))[0] == 200


async def test_thousands_of_bad_requests_leave_no_trace_and_harm_nobody(server):
    answered = 0

    async def good_ones():
        nonlocal answered
        async with Peer(server.port) as peer:
            while True:
                assert (await peer.send(GOOD))[0] == 200
                answered += 1
                await asyncio.sleep(0.02)

    async def all_of_them(peer):
        for bad in BAD:
            status, answer = await peer.send(bad.content)
            assert status == bad.status, (bad.name, answer)

    async with Peer(server.port) as peer, asyncio.TaskGroup() as beside:
        good = beside.create_task(good_ones())
        for _ in range(10):  # until allocators and caches have their size
            await all_of_them(peer)
        before = server.resident_bytes()
        for _ in range(20):
            await all_of_them(peer)
        assert server.resident_bytes() - before < GROWTH_BYTES
        assert answered > 10
        good.cancel()
        assert [(await peer.send(right))[0] for right in (GOOD, GOOD_BINARY)] == [200, 200]


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
    assert (await ask(server.port, "POST", INFER, BODY))[0] == 200


async def test_clients_that_stall_do_not_stop_the_others(server):
    stalled = []
    for part in (b"", b"POST ", b"POST %s HTTP/1.1\r\nContent-Length: 100\r\n\r\n{" % INFER.encode()) * 50:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(part)
        stalled.append(writer)
    for _ in range(20):
        assert (await ask(server.port, "POST", INFER, BODY))[0] == 200
    for writer in stalled:
        writer.transport.abort()
    assert (await ask(server.port, "GET", "/v2/health/live"))[0] == 200
