"""One HTTP/2 connection of gRPC clients: bytes ↔ streams. RFC 9113, the receiving half and what holds both together.

Promises that what a peer can make this server keep or do is bounded, whatever it sends: streams, bytes in memory,
header blocks and frames that cost and say nothing (`allowance`); that a peer which breaks the protocol is told
and left; that a request which the peer takes back is cancelled; and that a server which ends says so before it closes
(`goodbye`). Knows no path and no message: it calls `Calls`. Sections are those of RFC 9113.
Why not a ready-made server: docs/adr/0022-http2-for-grpc.md.
"""

import asyncio
import logging
from collections import deque
from typing import cast

from inference_server.errors import BodyTooLarge, NotReady, RequestError
from inference_server.http.eager import begin
from inference_server.http.limits import FLOOR_BYTES_PER_SECOND, IDLE_SECONDS, REQUEST_SECONDS, WRITE_SECONDS
from inference_server.http.peers import Peers
from inference_server.http2 import frames as h2
from inference_server.http2.allowance import Allowance, OpenBlock
from inference_server.http2.calls import Accepted, Calls
from inference_server.http2.frames import ConnectionFault, ErrorCode, StreamFault
from inference_server.http2.goodbye import Goodbye
from inference_server.http2.headers import HEADER_LIST_BYTES, HeaderBlocks, check_trailers
from inference_server.http2.stream import Sender, Stream

logger = logging.getLogger(__name__)

MAX_STREAMS = 128
# What a peer may send before it hears of us again; twice a frame and more.
STREAM_WINDOW = 1 << 20
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
_RESETS_REMEMBERED = 256


class Http2Connection(asyncio.Protocol):
    """One accepted connection, from the first byte of its preface on."""

    def __init__(self, peers: Peers, calls: Calls, loop: asyncio.AbstractEventLoop) -> None:
        self._peers = peers
        self._calls = calls
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._blocks: HeaderBlocks[tuple[Accepted, int | None]] = HeaderBlocks(
            lambda head: (calls.accept(head), head.length)
        )
        self._sender = Sender(self._write, self._finished, self._hold, loop.time)
        self._streams: dict[int, Stream] = {}
        self._lengths: dict[int, int] = {}  # what `content-length` promised and has not come
        self._reset: deque[int] = deque(
            maxlen=_RESETS_REMEMBERED
        )  # by us: what the peer had sent by then is ignored
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
        for stream in tuple(self._streams.values()):
            self._drop(stream)

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
        for stream in tuple(self._streams.values()):
            if stream.queue:
                if now - stream.moved > WRITE_SECONDS:
                    self._reset_stream(stream.number, ErrorCode.CANCEL)
                continue
            allowed = REQUEST_SECONDS + len(stream.body) / FLOOR_BYTES_PER_SECOND
            if not stream.ended and not stream.accepted.at_once and now - stream.since > allowed:
                self._reset_stream(stream.number, ErrorCode.CANCEL)
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
            self._reset_stream(number, fault.code)

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
            if number not in self._reset:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS: stream {number} is closed")
            return
        if stream.ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after the end of the request")
        if not ends:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "expected trailers to end the request")
        check_trailers(headers)
        self._end(stream)

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
        stream = Stream(number, accepted, self._sender, STREAM_WINDOW, self._received)
        self._streams[number] = stream
        if length is not None:
            self._lengths[number] = length
        if ends:
            self._end(stream)
        elif accepted.at_once:
            self._start(stream)

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
            if stream is None and (number in self._reset or number > self._last):
                return
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after the end of the request")
        stream.room -= size
        data = h2.unpadded(payload, flags)
        if data:
            self._keep(stream, data)
        elif not flags & h2.END_STREAM:
            self._allowance.charge(self._received)  # CVE-2019-9518
        if number not in self._streams:
            return  # refused
        if flags & h2.END_STREAM:
            self._end(stream)
        else:
            if stream.room < STREAM_WINDOW // 2:
                self._write(h2.window_frame(number, STREAM_WINDOW - stream.room))
                stream.room = STREAM_WINDOW
            stream.wake()

    def _keep(self, stream: Stream, data: memoryview) -> None:
        """Keep a piece of a body, if it may be kept."""
        size = len(data)
        if (left := self._lengths.get(stream.number)) is not None:
            if size > left:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "DATA beyond content-length")
            self._lengths[stream.number] = left - size
        if len(stream.body) + size > stream.accepted.max_bytes:
            expected = stream.accepted.max_bytes
            self._refuse(stream, BodyTooLarge(f"request: expected at most {expected} bytes, found more"))
            return
        try:
            self._peers.charge(size - stream.taken)
        except NotReady as error:
            self._refuse(stream, error)
        else:
            stream.taken = 0
            stream.body += data

    def _end(self, stream: Stream) -> None:
        """Take the end of a request."""
        stream.ended = True
        if self._lengths.pop(stream.number, 0):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "DATA short of content-length")
        if stream.task is None:
            self._start(stream)
        else:
            stream.wake()

    def _take_reset(self, number: int, payload: memoryview) -> None:
        h2.word(payload, "RST_STREAM")
        if self._is_idle(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM: stream {number} is not open")
        self._allowance.charge(
            self._received
        )  # CVE-2023-44487: asking and taking back is cheap for the peer only
        if (stream := self._streams.get(number)) is not None:
            self._drop(stream)

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

    def _start(self, stream: Stream) -> None:
        # Up to its first wait it runs here and now, which may be all of it.
        stream.task = begin(self._calls.answer(stream), self._loop)

    def _refuse(self, stream: Stream, error: RequestError) -> None:
        """Answer a request with an error before its end came; the rest of it is ignored."""
        if stream.task is not None:
            stream.task.cancel()
        self._calls.refuse(stream, error)

    def _finished(self, stream: Stream) -> None:
        """The end of an answer was written."""
        self._allowance.earn()
        if not stream.ended:
            # The answer is whole; the rest of the request is not wanted (section 8.1).
            self._write(h2.reset_frame(stream.number, ErrorCode.NO_ERROR))
            self._reset.append(stream.number)
        self._forget(stream)
        if self._peers.closing:
            self._goodbye.begin()
        if self._goodbye.over:
            self._close_if_done()

    def _hold(self, count: int) -> None:
        self._peers.held_bytes += count

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)
        self._lengths.pop(stream.number, None)
        self._peers.held_bytes -= len(stream.body) + stream.taken

    def _drop(self, stream: Stream) -> None:
        """End a stream on which nothing more will be said."""
        self._forget(stream)
        self._sender.forget(stream)
        if stream.task is not None:
            stream.task.cancel()

    def _reset_stream(self, number: int, code: ErrorCode) -> None:
        if (stream := self._streams.get(number)) is not None:
            self._drop(stream)
        self._reset.append(number)
        self._write(h2.reset_frame(number, code))

    def _give_up(self, fault: ConnectionFault) -> None:
        """Tell the peer what it did wrong, and close."""
        logger.info("connection ended", extra={"fields": {"code": fault.code.name, "message": str(fault)}})
        if self._transport is not None:
            self._transport.write(h2.goaway_frame(self._last, fault.code, str(fault)))
            self._transport.close()
        for stream in tuple(self._streams.values()):
            self._drop(stream)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
