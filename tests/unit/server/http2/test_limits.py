"""HTTP/2 peers that ask for much, send slowly or do not read: each within its limits, and alone."""

import asyncio

import pytest

from inference_server.grpc.messages import frame_message
from inference_server.http.limits import IDLE_SECONDS, REQUEST_SECONDS, WRITE_SECONDS
from inference_server.http2 import frames as h2
from inference_server.http2.connection import MAX_STREAMS
from inference_server.http2.frames import ErrorCode
from tests.unit.server.conftest import until
from tests.unit.server.http2_client import INFER, REFLECT, WATCH, Http2Client, infer_message


async def test_more_streams_than_allowed_are_refused(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        watching = [await client.call(WATCH) for _ in range(MAX_STREAMS)]
        refused = await client.call()
        assert (await client.answer(refused)).reset == ErrorCode.REFUSED_STREAM
        await client.send(h2.reset_frame(watching[0], ErrorCode.CANCEL))
        assert (await client.answer(await client.call())).status == 0


async def test_a_message_over_the_limit_is_refused_before_its_end(loopback):
    async with loopback(max_body_bytes=4096) as server:
        client = await Http2Client.connect(server)
        stream = await client.call(INFER, frame_message(bytes(5000))[:4102], ends=False)
        answer = await client.answer(stream)
        assert answer.status == 8
        assert "expected at most" in answer.headers["grpc-message"]
        # The rest of it is dropped, and does not count as an offence.
        await client.send(h2.frame(h2.DATA, h2.END_STREAM, stream, bytes(898)))
        assert (await client.answer(await client.call())).status == 0
        assert server.peers.held_bytes == 0
        labels = {"model": "m", "version": "1", "protocol": "grpc", "code": "413"}
        assert server.sample("inference_requests_total", **labels) == 1


async def test_bodies_of_all_connections_are_bounded(loopback):
    async with loopback(max_body_bytes=4096) as server:
        client = await Http2Client.connect(server)
        refused = None
        for _ in range(9):
            stream = await client.call(INFER, bytes(4000), ends=False)
        refused = await client.answer(stream)
        assert refused.status == 14
        assert server.peers.held_bytes <= 8 * 4096
        client.leave()
        await until(lambda: server.peers.held_bytes == 0)


async def test_answers_that_nobody_reads_do_not_pile_up(loopback):
    async with loopback(max_body_bytes=1 << 20) as server:
        client = await Http2Client.connect(server, {h2.INITIAL_WINDOW_SIZE: 1 << 24})
        await client.send(h2.window_frame(0, 1 << 30))
        message = infer_message([1.0] * 100_000)
        await client.until(h2.SETTINGS, ack=True)
        (connection,) = server.peers.connections
        for _ in range(MAX_STREAMS):
            await client.call(INFER, message)
            await until(lambda: not connection._streams or connection._writing_since is not None)
            if connection._writing_since is not None:
                break
        assert connection._transport.get_write_buffer_size() < 1 << 20


async def test_answers_that_nobody_reads_count_as_bodies_do(loopback):
    async with loopback(max_body_bytes=1 << 16) as server:
        client = await Http2Client.connect(server, {h2.INITIAL_WINDOW_SIZE: 0})
        await client.until(h2.SETTINGS, ack=True)
        (connection,) = server.peers.connections
        message = infer_message([1.0] * 15_000)
        asked = 20
        for _ in range(asked):
            number = await client.call(INFER, message)
            await until(lambda number=number: connection._last == number)
            await until(lambda: all(stream.queue for stream in connection._streams.values()))
        assert 0 < len(connection._streams) < asked  # the others were refused
        assert server.peers.held_bytes <= 9 * (1 << 16)
        client.leave()
        await until(lambda: server.peers.held_bytes == 0)


async def test_reflection_whose_answers_nobody_takes_is_not_read_on(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server, {h2.INITIAL_WINDOW_SIZE: 0})
        question = frame_message(b"\x3a\x00")  # list_services
        stream = await client.call(REFLECT, question * 50, ends=False)
        await client.send(h2.frame(h2.PING, 0, 0, b"anything"))
        await client.until(h2.PING)
        (connection,) = server.peers.connections
        waiting = connection._streams[stream]
        await until(lambda: waiting.queue)
        assert len(waiting.queue) == 1
        await client.send(h2.window_frame(stream, 1 << 20) + h2.frame(h2.DATA, h2.END_STREAM, stream))
        assert (await client.answer(stream)).status == 0


@pytest.mark.parametrize(
    ("sent", "allowed"),
    [
        (b"", IDLE_SECONDS),
        (h2.PREFACE[:10], IDLE_SECONDS),
        (h2.PREFACE, IDLE_SECONDS),
    ],
)
async def test_a_peer_that_never_gets_to_the_point_is_cut_off(loopback, sent, allowed):
    async with loopback() as server:
        client = await server.connect()
        await client.send(sent)
        await until(lambda: server.peers.connections)
        (connection,) = server.peers.connections
        now = asyncio.get_running_loop().time()
        assert not connection.overdue(now + allowed - 1)
        assert connection.overdue(now + allowed + 2)


async def test_an_idle_peer_is_told_to_go_and_a_watching_one_asked_whether_it_is_there(loopback):
    async with loopback() as server:
        idle, watching = await Http2Client.connect(server), await Http2Client.connect(server)
        assert (await idle.answer(await idle.call())).status == 0
        await watching.call(WATCH)
        await watching.until(h2.DATA)
        for connection in tuple(server.peers.connections):
            assert not connection.overdue(connection._received + IDLE_SECONDS + 1)
        await idle.until(h2.GOAWAY)
        ping = await watching.until(h2.PING)
        (silent,) = [connection for connection in server.peers.connections if connection.busy]
        assert silent.overdue(silent._received + IDLE_SECONDS + 30)
        await watching.send(h2.frame(h2.PING, h2.ACK, 0, ping.payload))
        await until(lambda: silent._asked is None)
        assert not silent.overdue(silent._received + 1)


async def test_a_stream_that_trickles_or_is_not_read_is_reset_alone(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server, {h2.INITIAL_WINDOW_SIZE: 10})
        trickling = await client.call(INFER, b"\0", ends=False)
        unread = await client.call(INFER, infer_message([1.0] * 10))
        await client.until(h2.DATA, unread)
        (connection,) = server.peers.connections
        later = asyncio.get_running_loop().time() + max(REQUEST_SECONDS, WRITE_SECONDS) + 2
        assert not connection.overdue(later)
        assert (await client.answer(trickling)).reset == ErrorCode.CANCEL
        assert (await client.answer(unread)).reset == ErrorCode.CANCEL
        await client.send(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 1000}))
        assert (await client.answer(await client.call())).status == 0
        assert server.peers.held_bytes == 0
