"""One HTTP/2 connection of gRPC clients: bytes ↔ streams. RFC 9113, what frames mean and what holds all together.

Promises that what a peer can make this server keep or do is bounded, whatever it sends: streams and their bytes (`streams`),
header blocks and frames that cost and say nothing (`allowance`); that a peer which breaks the protocol is told
and left; that a request which the peer takes back is cancelled; and that a server which ends says so before it closes
(`goodbye`). Knows no path and no message: it calls `Calls`. Sections are those of RFC 9113.
Why not a ready-made server: docs/adr/0022-http2-for-grpc.md.
"""

import asyncio
import logging
from typing import cast

from inference_server.http.limits import IDLE_SECONDS, WRITE_SECONDS
from inference_server.http.peers import Peers
from inference_server.http2 import frames as h2
from inference_server.http2.allowance import Allowance, OpenBlock
from inference_server.http2.calls import Accepted, Calls
from inference_server.http2.frames import ConnectionFault, ErrorCode, StreamFault
from inference_server.http2.goodbye import Goodbye
from inference_server.http2.headers import HEADER_LIST_BYTES, HeaderBlocks, check_trailers
from inference_server.http2.stream import Stream
from inference_server.http2.streams import STREAM_WINDOW, Streams

logger = logging.getLogger(__name__)

MAX_STREAMS = 128
# What a peer may send on all streams together before it hears of us again.
CONNECTION_WINDOW = 4 << 20
FRAME_BYTES = 1 << 16
# A peer from which nothing came for IDLE_SECONDS, and which has streams open, is asked whether it is there.
PONG_SECONDS = 20.0

_SETTINGS = h2.settings_frame(
    {
        h2.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        h2.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        h2.MAX_FRAME_SIZE: FRAME_BYTES,
        h2.MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
    }
) + h2.window_frame(0, CONNECTION_WINDOW - h2.DEFAULT_WINDOW)
_SETTINGS_ACK = h2.frame(h2.SETTINGS, h2.ACK, 0)
_ARE_YOU_THERE = b"are-you-"


class Http2Connection(asyncio.Protocol):
    """One accepted connection, from the first byte of its preface on."""

    def __init__(self, peers: Peers, calls: Calls, loop: asyncio.AbstractEventLoop) -> None:
        self._peers = peers
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._blocks: HeaderBlocks[tuple[Accepted, int | None]] = HeaderBlocks(
            lambda head: (calls.accept(head), head.length)
        )
        self._streams = Streams(peers, calls, self._write, self._finished, loop)
        self._sender = self._streams.sender
        self._rest = h2.PREFACE  # while `_opening`: what is still to come of it; then: an unfinished frame
        self._opening = True
        self._settled = False  # whether the peer's SETTINGS came
        self._block: OpenBlock | None = None
        self._last = 0
        self._room = CONNECTION_WINDOW
        self._received = loop.time()
        self._allowance = Allowance(self._received)
        self._goodbye = Goodbye(self._write, loop.time)
        self._asked: float | None = None
        self._writing_since: float | None = None

    @classmethod
    def take_over(cls, calls: Calls, peers: Peers, transport: asyncio.Transport, data: bytes) -> None:
        """Go on with an accepted connection that began with the preface of HTTP/2.

        Args:
            calls: Whom to call.
            peers: What all connections share.
            transport: Of the connection.
            data: What came of it so far.
        """
        connection = cls(peers, calls, asyncio.get_running_loop())
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(data)

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: our settings need not wait for the peer's (section 3.4)."""
        self._transport = cast(asyncio.Transport, transport)
        self._peers.connections.add(self)
        self._transport.write(_SETTINGS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and cancel what is being answered."""
        del exc
        self._peers.connections.discard(self)
        self._transport = None
        self._streams.drop_all()

    def eof_received(self) -> bool:
        """Take the end of what the peer sends for its leaving, as for HTTP/1.1."""
        return False

    def pause_writing(self) -> None:
        """Neither write nor read while the peer does not read: what it sends would need answers."""
        self._writing_since = self._loop.time()
        self._sender.paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._writing_since = None
        self._sender.paused = False
        self._sender.flush()
        if self._transport is not None and not self._sender.paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take the frames apart."""
        if self._transport is None or self._transport.is_closing():
            return
        self._received = self._loop.time()
        self._asked = None
        try:
            if self._opening and not (data := self._after_preface(data)):
                return
            buffer = memoryview(self._rest + data if self._rest else data)
            at, end = 0, len(buffer)
            while end - at >= h2.HEAD_BYTES:
                high, low, kind, flags, number = h2.HEAD.unpack_from(buffer, at)
                start = at + h2.HEAD_BYTES
                length = high << 16 | low
                h2.check_length(length, FRAME_BYTES)
                if end - start < length:
                    break
                at = start + length
                self._take(kind, flags, number & h2.MAX_STREAM_ID, buffer[start:at])
            self._rest = bytes(buffer[at:])
        except ConnectionFault as fault:
            self._give_up(fault)

    # --- what the process asks of a connection (as `http.connection.HttpConnection`) ---

    @property
    def busy(self) -> bool:
        """Whether an answer is due or being computed."""
        return bool(self._streams)

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def move_on(self) -> None:
        """Tell the peer to send its next requests elsewhere; what it has sent by the time it hears that is answered."""
        self._goodbye.begin()

    def close_if_idle(self) -> None:
        """Say goodbye, and close once nothing is under way."""
        self._goodbye.begin()
        self._goodbye.look(self._last)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._goodbye.over and not self._streams and self._transport is not None:
            self._transport.close()

    def overdue(self, now: float) -> bool:
        """Whether the peer has been given long enough; single streams of which that is true are ended here."""
        if self._writing_since is not None and now - self._writing_since > WRITE_SECONDS:
            return True
        self._streams.reset_overdue(now)
        if self._goodbye.begun:
            self.close_if_idle()
        if now - self._received <= IDLE_SECONDS:
            return False
        if not self._streams:
            if not self._settled:
                return True
            self.move_on()
            return now - self._received > IDLE_SECONDS + PONG_SECONDS
        if self._asked is None:
            self._asked = now
            self._write(h2.frame(h2.PING, 0, 0, _ARE_YOU_THERE))
        return now - self._asked > PONG_SECONDS

    # --- receiving ---

    def _after_preface(self, data: bytes) -> bytes:
        """Return what follows the preface."""
        expected = self._rest
        if data[: len(expected)] != expected[: len(data)]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected the preface of HTTP/2")
        self._rest = expected[len(data) :]
        self._opening = bool(self._rest)
        return data[len(expected) :]

    def _take(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        """Take one frame."""
        if self._block is not None and (kind != h2.CONTINUATION or number != self._block.stream):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected CONTINUATION of the header block")
        if not self._settled and (kind != h2.SETTINGS or flags & h2.ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected SETTINGS first")
        if kind in (h2.SETTINGS, h2.PING, h2.GOAWAY):
            if number:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected stream 0")
        elif not number and kind not in (h2.WINDOW_UPDATE, h2.PUSH_PROMISE) and kind <= h2.CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected a stream, found 0")
        try:
            if kind == h2.DATA:
                self._take_data(flags, number, payload)
            elif kind == h2.HEADERS:
                self._take_headers(flags, number, payload)
            elif kind == h2.WINDOW_UPDATE:
                self._take_window(number, payload)
            elif kind == h2.SETTINGS:
                self._take_settings(flags, payload)
            elif kind == h2.PING:
                self._take_ping(flags, payload)
            elif kind == h2.RST_STREAM:
                self._take_reset(number, payload)
            elif kind == h2.CONTINUATION:
                self._take_continuation(flags, payload)
            elif kind == h2.PUSH_PROMISE:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client pushes nothing")
            else:
                self._allowance.charge(self._received)
                if kind == h2.PRIORITY:  # looked at, and ignored (section 5.3.2)
                    h2.check_priority(payload, number)
        except StreamFault as fault:
            logger.debug("stream ended", extra={"fields": {"code": fault.code.name, "message": str(fault)}})
            self._allowance.charge(self._received)
            self._streams.reset(number, fault.code)

    def _take_headers(self, flags: int, number: int, payload: memoryview) -> None:
        fragment = h2.header_block(payload, flags, number)
        if flags & h2.END_HEADERS:
            self._take_block(flags, number, bytes(fragment))
        else:
            self._block = OpenBlock(number, flags, bytearray())
            self._block.add(fragment)

    def _take_continuation(self, flags: int, payload: memoryview) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        block.add(payload)
        if flags & h2.END_HEADERS:
            self._block = None
            self._take_block(block.flags, block.stream, bytes(block.fragments))

    def _take_block(self, flags: int, number: int, block: bytes) -> None:
        """Take a whole header block. It is decoded whatever becomes of it: the next one builds on it."""
        ends = bool(flags & h2.END_STREAM)
        if number > self._last:
            self._open(number, block, ends)
            return
        headers = self._blocks.decode(block)
        stream = self._streams.get(number)
        if stream is None:
            if number not in self._streams.resets:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS: stream {number} is closed")
            return
        if stream.ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after the end of the request")
        if not ends:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "expected trailers to end the request")
        check_trailers(headers)
        self._streams.end(stream)

    def _open(self, number: int, block: bytes, ends: bool) -> None:
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams are odd")
        if self._goodbye.over or len(self._streams) >= MAX_STREAMS:
            self._blocks.decode(block)
            if self._goodbye.over:
                return
            self._last = number
            raise StreamFault(ErrorCode.REFUSED_STREAM, f"expected at most {MAX_STREAMS} streams")
        self._last = number
        accepted, length = self._blocks.request(block)
        stream = self._streams.open(number, accepted, length, self._received)
        if ends:
            self._streams.end(stream)
        elif accepted.at_once:
            self._streams.start(stream)

    def _take_data(self, flags: int, number: int, payload: memoryview) -> None:
        size = len(payload)  # padding counts (section 6.9.1)
        # What is taken is counted in `held_bytes`, so its room is given back at once: half a window and more is always
        # left, and no frame is larger than that.
        self._room -= size
        if self._room < CONNECTION_WINDOW // 2:
            self._write(h2.window_frame(0, CONNECTION_WINDOW - self._room))
            self._room = CONNECTION_WINDOW
        stream = self._streams.get(number)
        if stream is None or stream.ended:
            if self._is_idle(number):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA: stream {number} is not open")
            if stream is None and (number in self._streams.resets or number > self._last):
                return
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after the end of the request")
        stream.room -= size
        data = h2.unpadded(payload, flags)
        if data:
            self._streams.keep(stream, data)
        elif not flags & h2.END_STREAM:
            self._allowance.charge(self._received)  # CVE-2019-9518
        if number not in self._streams:
            return  # refused
        if flags & h2.END_STREAM:
            self._streams.end(stream)
        else:
            self._streams.give_room(stream)

    def _take_reset(self, number: int, payload: memoryview) -> None:
        h2.word(payload, "RST_STREAM")
        if self._is_idle(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM: stream {number} is not open")
        self._allowance.charge(
            self._received
        )  # CVE-2023-44487: asking and taking back is cheap for the peer only
        if (stream := self._streams.get(number)) is not None:
            self._streams.drop(stream)

    def _take_settings(self, flags: int, payload: memoryview) -> None:
        self._allowance.charge(self._received)
        if flags & h2.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS with ACK: expected nothing")
            return
        peer = self._sender.peer
        for key, value in h2.read_settings(payload):
            if key == h2.MAX_FRAME_SIZE:
                peer.frame_bytes = value
            elif key == h2.INITIAL_WINDOW_SIZE:
                # Holds for open streams too, whose windows may become negative (section 6.9.2).
                for stream in self._streams.values():
                    stream.window += value - peer.initial_window
                    if stream.window > h2.MAX_WINDOW:
                        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "window: expected below 2^31")
                peer.initial_window = value
        self._settled = True
        self._write(_SETTINGS_ACK)
        self._sender.flush()

    def _take_ping(self, flags: int, payload: memoryview) -> None:
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING: expected eight bytes")
        if not flags & h2.ACK:
            self._allowance.charge(self._received)
            self._write(h2.frame(h2.PING, h2.ACK, 0, bytes(payload)))
        else:
            self._goodbye.heard(payload, self._last)
            self._close_if_done()

    def _take_window(self, number: int, payload: memoryview) -> None:
        increment = h2.word(payload, "WINDOW_UPDATE") & h2.MAX_WINDOW
        if self._is_idle(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE: stream {number} is not open")
        stream = self._streams.get(number)
        if increment == 0:
            if number == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE: expected more than 0")
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE: expected more than 0")
        if number == 0 or stream is not None:
            self._sender.widen(stream, increment)

    def _is_idle(self, number: int) -> bool:
        """Whether the peer names a stream that it never opened; after the goodbye it may have, unheard."""
        return number > self._last and not self._goodbye.over

    # --- answering ---

    def _finished(self, stream: Stream) -> None:
        """The end of an answer was written."""
        self._peers.answered()
        self._allowance.earn()
        self._streams.finish(stream)
        if self._peers.closing:
            self._goodbye.begin()
        if self._goodbye.over:
            self._close_if_done()

    def _give_up(self, fault: ConnectionFault) -> None:
        """Tell the peer what it did wrong, and close."""
        logger.info("connection ended", extra={"fields": {"code": fault.code.name, "message": str(fault)}})
        if self._transport is not None:
            self._transport.write(h2.goaway_frame(self._last, fault.code, str(fault)))
            self._transport.close()
        self._streams.drop_all()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
