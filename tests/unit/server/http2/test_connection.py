"""HTTP/2 on the wire: framing, windows, cancellation, goodbyes."""

import pytest

from inference_server.grpc.messages import frame_message
from inference_server.http2 import frames as h2
from inference_server.http2.connection import CONNECTION_WINDOW, FRAME_BYTES, MAX_STREAMS
from inference_server.http2.frames import ErrorCode
from inference_server.http2.headers import literal
from inference_server.http2.streams import STREAM_WINDOW
from inference_server.proto import inference_pb2 as pb
from tests.unit.server.conftest import until
from tests.unit.server.http2_client import INFER, LIVE, WATCH, Http2Client, infer_message, request_headers

HEADERS = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, request_headers())


def doubled(answer):
    assert answer.headers["grpc-status"] == "0", answer.headers
    reply = pb.ModelInferResponse.FromString(answer.data[5:])
    return list(reply.outputs[0].contents.fp32_contents)


async def test_settings_come_first_and_are_acknowledged(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        first = await client.frame()
        assert (first.kind, first.flags, first.stream) == (h2.SETTINGS, 0, 0)
        values = dict(h2.read_settings(memoryview(first.payload)))
        assert values[h2.MAX_CONCURRENT_STREAMS] == MAX_STREAMS
        assert (await client.until(h2.SETTINGS, ack=True)).payload == b""


@pytest.mark.parametrize("size", [1, 7, 23, 24, 40])
async def test_a_connection_may_come_in_pieces(loopback, size):
    async with loopback() as server:
        client = Http2Client(await server.connect())
        raw = (
            h2.PREFACE
            + h2.settings_frame({})
            + HEADERS
            + h2.frame(h2.DATA, h2.END_STREAM, 1, frame_message(b""))
        )
        for start in range(0, len(raw), size):
            await client.send(raw[start : start + size])
        assert (await client.answer(1)).status == 0


async def test_http1_whose_first_byte_comes_alone_is_http1(loopback):
    async with loopback() as server:
        client = await server.connect()
        for octet in b"POST /v2 HTTP/1.1\r\nContent-Length: 0\r\n\r\n":
            await client.send(bytes((octet,)))
        assert (await client.receive())[0] == 405


async def test_streams_are_answered_as_they_are_done(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        server.model.go.clear()
        slow = await client.call(INFER, infer_message([1.0, 2.0]))
        await until(server.model.entered.is_set)
        assert (await client.answer(await client.call())).status == 0
        server.model.go.set()
        assert doubled(await client.answer(slow)) == [2.0, 4.0]
        assert server.peers.held_bytes == 0


async def test_equal_header_blocks_mean_the_same_until_the_table_changes(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        # Index 62 is the newest entry of the dynamic table (RFC 7541 section 2.3.3): :path, which the blocks refer to.
        common = literal(
            [(b":method", b"POST"), (b":scheme", b"http"), (b"content-type", b"application/grpc")]
        )
        for stream, added in ((1, b"/grpc.health.v1.Health/Check"), (5, b"/nowhere"), (9, LIVE.encode())):
            learn = b"\x44" + bytes((len(added),)) + added  # ":path" by index 4, to be kept
            for number, block in ((stream, learn + common), (stream + 2, b"\xbe" + common)):
                await client.send(
                    h2.frame(h2.HEADERS, h2.END_HEADERS, number, block)
                    + h2.frame(h2.DATA, h2.END_STREAM, number, frame_message(b""))
                )
                assert (await client.answer(number)).status == (12 if added == b"/nowhere" else 0)


async def test_a_large_request_gets_room_as_it_comes(loopback):
    async with loopback(max_body_bytes=8 << 20) as server:
        client = await Http2Client.connect(server)
        count = 1_200_000  # 4.8 MB: past both windows
        request = pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(4 * count)])
        request.inputs.add(name="x", datatype="FP32", shape=[count])
        request.outputs.add(name="y")
        message = frame_message(request.SerializeToString())
        await client.send(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 1 << 24}) + h2.window_frame(0, 1 << 24))
        await client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, request_headers(INFER)))
        room, at = {0: h2.DEFAULT_WINDOW, 1: STREAM_WINDOW}, 0
        while at < len(message):
            size = min(FRAME_BYTES, room[0], room[1], len(message) - at)
            if size == 0:
                update = await client.until(h2.WINDOW_UPDATE)
                room[update.stream] += h2.WORD.unpack(update.payload)[0]
                continue
            ends = h2.END_STREAM if at + size == len(message) else 0
            await client.send(h2.frame(h2.DATA, ends, 1, message[at : at + size]))
            at += size
            room[0] -= size
            room[1] -= size
        answer = await client.answer(1)
        assert (answer.status, len(answer.data) > 4 * count) == (0, True)
        assert server.peers.held_bytes == 0
        assert room[0] + len(message) >= CONNECTION_WINDOW


async def test_nothing_is_sent_beyond_the_peers_windows(loopback):
    async with loopback(max_body_bytes=1 << 20) as server:
        client = await Http2Client.connect(server, {h2.INITIAL_WINDOW_SIZE: 100})
        stream = await client.call(INFER, infer_message([1.0] * 1000))
        data = await client.until(h2.DATA, stream)
        assert len(data.payload) == 100
        await client.send(h2.frame(h2.PING, 0, 0, b"anything"))
        assert (await client.frame()).kind == h2.PING  # and no more data
        await client.send(h2.window_frame(stream, 50))
        assert len((await client.until(h2.DATA, stream)).payload) == 50
        # A smaller first window counts for open streams, and makes theirs negative (section 6.9.2).
        await client.send(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 0}) + h2.window_frame(stream, 100))
        await client.until(h2.SETTINGS, ack=True)
        await client.send(h2.frame(h2.PING, 0, 0, b"anything"))
        assert (await client.frame()).kind == h2.PING
        await client.send(h2.window_frame(stream, 100_000))
        assert (await client.answer(stream)).status == 0


async def test_large_answers_take_turns(loopback):
    async with loopback(max_body_bytes=1 << 20) as server:
        client = await Http2Client.connect(server, {h2.INITIAL_WINDOW_SIZE: 1 << 20})
        message = infer_message([1.0] * 50_000)
        streams = [await client.call(INFER, message) for _ in range(2)]
        order = []
        await client.send(h2.window_frame(0, 1 << 20))
        ended = 0
        while ended < 2:
            found = await client.frame()
            if found.kind == h2.DATA:
                order.append(found.stream)
            ended += found.kind == h2.HEADERS and bool(found.flags & h2.END_STREAM)
        assert set(order) == set(streams)
        assert len(order) > 20


async def test_a_request_taken_back_is_not_computed(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        server.model.go.clear()
        busy = await client.call(INFER, infer_message([1.0]))
        await until(server.model.entered.is_set)
        gone = await client.call(INFER, infer_message([2.0]))
        await until(lambda: server.sample("inference_inflight_requests", model="m", version="1") == 2)
        await client.send(h2.reset_frame(gone, ErrorCode.CANCEL))
        labels = {"model": "m", "version": "1", "protocol": "grpc", "code": "499"}
        await until(lambda: server.sample("inference_requests_total", **labels) == 1)
        server.model.go.set()
        assert doubled(await client.answer(busy)) == [2.0]
        assert server.model.runs == 1
        assert server.peers.held_bytes == 0


async def test_a_lost_connection_takes_its_requests_along(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        server.model.go.clear()
        await client.call(INFER, infer_message([1.0]))
        await until(server.model.entered.is_set)
        await client.call(WATCH)
        client.leave()
        labels = {"model": "m", "version": "1", "protocol": "grpc", "code": "499"}
        await until(lambda: server.sample("inference_requests_total", **labels) == 1)
        assert not server.peers.connections
        assert server.peers.held_bytes == 0


async def test_a_server_that_ends_says_so_in_two_steps_and_answers_what_came_before(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        await client.until(h2.SETTINGS, ack=True)
        server.model.go.clear()
        first = await client.call(INFER, infer_message([1.0]))
        await until(server.model.entered.is_set)
        (connection,) = server.peers.connections
        server.peers.closing = True
        connection.move_on()
        announced = await client.until(h2.GOAWAY)
        assert h2.WORD.unpack_from(announced.payload)[0] == h2.MAX_STREAM_ID
        ping = await client.until(h2.PING)
        second = await client.call(INFER, infer_message([2.0]))  # sent before the client read the GOAWAY
        await client.send(h2.frame(h2.PING, h2.ACK, 0, ping.payload))
        final = await client.until(h2.GOAWAY)
        assert h2.WORD.unpack_from(final.payload)[0] == second
        # Ignored, whatever else comes of it; the others go on.
        late = await client.call()
        await client.send(h2.window_frame(late, 5) + h2.reset_frame(late, ErrorCode.CANCEL))
        server.model.go.set()
        assert doubled(await client.answer(first)) == [2.0]
        assert doubled(await client.answer(second)) == [4.0]
        assert late > second
        assert await client._client.closed()


async def test_a_connection_made_while_the_server_ends_gets_one_answer(loopback):
    async with loopback() as server:
        server.peers.closing = True
        client = await Http2Client.connect(server)
        assert (await client.answer(await client.call())).status == 0
        await client.until(h2.GOAWAY)


async def test_trailers_end_a_request(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        stream = await client.call(ends=False)
        block = literal([(b"x-checksum", b"1")])
        await client.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, block))
        assert (await client.answer(stream)).status == 0


async def test_padding_priority_and_continuation_are_read(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        block = request_headers()
        head = bytes((3,)) + h2.WORD.pack(0) + b"\x10" + block[:9] + bytes(3)
        await client.send(
            h2.frame(h2.PRIORITY, 0, 5, h2.WORD.pack(0) + b"\x10")
            + h2.frame(h2.HEADERS, h2.PADDED | h2.HAS_PRIORITY, 1, head)
            + h2.frame(h2.CONTINUATION, 0, 1, block[9:20])
            + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[20:])
            + h2.frame(h2.DATA, h2.PADDED | h2.END_STREAM, 1, b"\x04" + frame_message(b"") + bytes(4))
            + h2.frame(99, 0, 0, b"of an extension")
        )
        assert (await client.answer(1)).status == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"method": "GET"}, "405"),
        ({"content_type": "application/json"}, "415"),
        ({"content_type": None}, "415"),
    ],
)
async def test_what_is_not_grpc_is_told_so(loopback, headers, status):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        answer = await client.answer(await client.call(ends=False, **headers))
        assert answer.headers[":status"] == status
