"""HTTP/2 on the wire: framing, windows, cancellation, goodbyes, and peers that break the rules or abuse them."""

import asyncio

import pytest

from inference_server.grpc.messages import frame_message
from inference_server.http.limits import IDLE_SECONDS, REQUEST_SECONDS, WRITE_SECONDS
from inference_server.http2 import frames as h2
from inference_server.http2.allowance import CHARGES
from inference_server.http2.connection import (
    CONNECTION_WINDOW,
    FRAME_BYTES,
    MAX_STREAMS,
)
from inference_server.http2.frames import ErrorCode
from inference_server.http2.headers import HEADER_LIST_BYTES, literal
from inference_server.http2.streams import STREAM_WINDOW
from inference_server.proto import inference_pb2 as pb
from tests.unit.server.conftest import until
from tests.unit.server.http2_client import (
    INFER,
    LIVE,
    REFLECT,
    WATCH,
    Http2Client,
    infer_message,
    request_headers,
)

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


GOOD = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, request_headers(INFER))
CONNECTION_FAULTS = {
    "settings on a stream": (h2.frame(h2.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "settings of five bytes": (h2.frame(h2.SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "settings that answer and say": (h2.frame(h2.SETTINGS, h2.ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "push of 2": (h2.settings_frame({h2.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
    "a first window of 2^31": (h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
    "frames of 16383": (h2.settings_frame({h2.MAX_FRAME_SIZE: 16_383}), ErrorCode.PROTOCOL_ERROR),
    "ping on a stream": (h2.frame(h2.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "ping of seven bytes": (h2.frame(h2.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "goaway on a stream": (h2.frame(h2.GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "headers on no stream": (h2.frame(h2.HEADERS, h2.END_HEADERS, 0, request_headers()), ErrorCode.PROTOCOL_ERROR),
    "an even stream": (h2.frame(h2.HEADERS, h2.END_HEADERS, 2, request_headers()), ErrorCode.PROTOCOL_ERROR),
    "an older stream": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 5, request_headers("/x"))
        + h2.frame(h2.HEADERS, h2.END_HEADERS, 3, request_headers()),
        ErrorCode.STREAM_CLOSED,
    ),
    "data on no stream": (h2.frame(h2.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data on an idle stream": (h2.frame(h2.DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "reset of an idle stream": (h2.reset_frame(1, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
    "reset of three bytes": (GOOD + h2.frame(h2.RST_STREAM, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "room for an idle stream": (h2.window_frame(1, 1), ErrorCode.PROTOCOL_ERROR),
    "room of nothing": (h2.window_frame(0, 0), ErrorCode.PROTOCOL_ERROR),
    "room of three bytes": (h2.frame(h2.WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "too much room": (h2.window_frame(0, h2.MAX_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    "a push": (h2.frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "continuation of nothing": (h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1), ErrorCode.PROTOCOL_ERROR),
    "another frame within a block": (
        h2.frame(h2.HEADERS, 0, 1, request_headers()) + h2.frame(h2.PING, 0, 0, bytes(8)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "another stream within a block": (
        h2.frame(h2.HEADERS, 0, 1, request_headers()) + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 3),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "padding of everything": (GOOD + h2.frame(h2.DATA, h2.PADDED, 1, b"\x01"), ErrorCode.PROTOCOL_ERROR),
    "headers too short for a priority": (
        h2.frame(h2.HEADERS, h2.END_HEADERS | h2.HAS_PRIORITY, 1, bytes(4)),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a stream that depends on itself": (
        h2.frame(h2.HEADERS, h2.END_HEADERS | h2.HAS_PRIORITY, 1, h2.WORD.pack(1) + b"\0" + request_headers()),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a frame of a megabyte": (h2.HEAD.pack(0x10, 0, h2.DATA, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    "a header block of nonsense": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff" * 20),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "an index beyond the table": (h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xbe"), ErrorCode.COMPRESSION_ERROR),
    "headers that expand": (  # 4000 bytes in the table, then named 50 times (RFC 7541 section 7.3)
        h2.frame(
            h2.HEADERS, h2.END_HEADERS, 1, b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 50
        ),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a header block without end": (
        h2.frame(h2.HEADERS, 0, 1, bytes(HEADER_LIST_BYTES)) + h2.frame(h2.CONTINUATION, 0, 1, b"x"),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "continuations of nothing without end": (  # CVE-2024-27316
        h2.frame(h2.HEADERS, 0, 1, b"") + h2.frame(h2.CONTINUATION, 0, 1) * 100,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "pings without end": (h2.frame(h2.PING, 0, 0, bytes(8)) * 1100, ErrorCode.ENHANCE_YOUR_CALM),
    "settings without end": (h2.settings_frame({}) * 1100, ErrorCode.ENHANCE_YOUR_CALM),
    "priorities without end": (h2.frame(h2.PRIORITY, 0, 1, bytes(5)) * 1100, ErrorCode.ENHANCE_YOUR_CALM),
    "data of nothing without end": (GOOD + h2.frame(h2.DATA, 0, 1) * 1100, ErrorCode.ENHANCE_YOUR_CALM),
    "requests taken back without end": (  # CVE-2023-44487
        b"".join(
            h2.frame(h2.HEADERS, h2.END_HEADERS, stream, request_headers(INFER))
            + h2.reset_frame(stream, ErrorCode.CANCEL)
            for stream in range(1, 2 * int(CHARGES) + 200, 2)
        ),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "code"), CONNECTION_FAULTS.values(), ids=CONNECTION_FAULTS)
async def test_a_broken_connection_is_ended_with_the_right_word(loopback, sent, code):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        await client.send(sent)
        assert await client.goaway() == code
        await until(lambda: not server.peers.connections)
        assert server.peers.held_bytes == 0
        # Others are served.
        other = await Http2Client.connect(server)
        assert (await other.answer(await other.call())).status == 0


async def test_settings_must_come_first(loopback):
    async with loopback() as server:
        client = Http2Client(await server.connect())
        await client.send(h2.PREFACE + HEADERS)
        assert await client.goaway() == ErrorCode.PROTOCOL_ERROR


def with_fields(*pairs):
    return h2.frame(h2.HEADERS, h2.END_HEADERS, 1, request_headers(INFER) + literal(pairs))


STREAM_FAULTS = {
    "an upper-case name": (with_fields((b"X-Y", b"1")), ErrorCode.PROTOCOL_ERROR),
    "a line end in a value": (with_fields((b"x", b"1\r\ny: 2")), ErrorCode.PROTOCOL_ERROR),
    "a value in spaces": (with_fields((b"x", b" 1")), ErrorCode.PROTOCOL_ERROR),
    "connection": (with_fields((b"connection", b"close")), ErrorCode.PROTOCOL_ERROR),
    "te of gzip": (with_fields((b"te", b"gzip")), ErrorCode.PROTOCOL_ERROR),
    "a pseudo-header after the others": (with_fields((b":path", b"/")), ErrorCode.PROTOCOL_ERROR),
    "a length that is no number": (with_fields((b"content-length", b"x")), ErrorCode.PROTOCOL_ERROR),
    "no path": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, literal([(b":method", b"POST"), (b":scheme", b"http")])),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a status": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, literal([(b":status", b"200")]) + request_headers()),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "less than the length": (
        with_fields((b"content-length", b"9")) + h2.frame(h2.DATA, h2.END_STREAM, 1, b"12345678"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "more than the length": (
        with_fields((b"content-length", b"3")) + h2.frame(h2.DATA, 0, 1, b"1234"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "trailers that do not end": (
        GOOD + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, literal([(b"x", b"1")])),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a pseudo-header in trailers": (
        GOOD + h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, literal([(b":path", b"/")])),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "room of nothing": (GOOD + h2.window_frame(1, 0), ErrorCode.PROTOCOL_ERROR),
    "too much room": (GOOD + h2.window_frame(1, h2.MAX_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    "a priority of four bytes": (GOOD + h2.frame(h2.PRIORITY, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
    "a priority on itself": (
        GOOD + h2.frame(h2.PRIORITY, 0, 1, h2.WORD.pack(1) + b"\0"),
        ErrorCode.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize(("sent", "code"), STREAM_FAULTS.values(), ids=STREAM_FAULTS)
async def test_a_broken_stream_is_reset_and_the_others_go_on(loopback, sent, code):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        await client.send(sent)
        reset = await client.until(h2.RST_STREAM, 1)
        assert h2.WORD.unpack(reset.payload)[0] == code
        client.next_stream = 3
        assert (await client.answer(await client.call())).status == 0
        assert server.peers.held_bytes == 0
        assert server.model.runs == 0


async def test_data_after_the_end_is_refused_on_that_stream(loopback):
    async with loopback() as server:
        client = await Http2Client.connect(server)
        server.model.go.clear()
        stream = await client.call(INFER, infer_message([1.0]))
        await client.send(h2.frame(h2.DATA, 0, stream, b"more"))
        assert (await client.answer(stream)).reset == ErrorCode.STREAM_CLOSED
        server.model.go.set()


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
