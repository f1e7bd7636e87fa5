"""HTTP/2 peers that break the rules: which word they get, and that others are served."""

import pytest

from inference_server.http2 import frames as h2
from inference_server.http2.allowance import CHARGES
from inference_server.http2.frames import ErrorCode
from inference_server.http2.headers import HEADER_LIST_BYTES, literal
from tests.unit.server.conftest import until
from tests.unit.server.http2_client import INFER, Http2Client, infer_message, request_headers

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
        await client.send(h2.PREFACE + GOOD)
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
