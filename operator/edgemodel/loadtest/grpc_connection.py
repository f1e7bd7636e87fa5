"""One HTTP/2 connection of a load client by gRPC: writes a call, finds out when its answer is whole, keeps the first of it.

Promises that whatever the server sends, memory stays what it was (the headers of an answer have 32 KiB, a frame has 16 KiB,
of a message only the first bytes are kept). One call at a time: each client has a connection of its own, as by HTTP.

Why not a library for more than header compression (hpack): the client must cost less than what it measures, on the same two
cores. h2 alone takes more than three times the processor time of all this for each call (``make bench NAME=load_client``),
more than the inference server takes to answer one (``docs/adr/0022-http2-for-grpc.md``).

Sources: RFC 9113 and 7541; grpc/doc/PROTOCOL-HTTP2.md and statuscodes.md.
"""

import asyncio
import struct
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from hpack import Decoder, HPACKError

from edgemodel.loadtest.connection import HEAD_BYTES, Connection, Malformed, Owner

_STATUSES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
_FRAME = struct.Struct(">BHBBI")
"""Length (8 and 16 bits), type, flags, stream."""
_PAIR = struct.Struct(">HI")
_DATA, _HEADERS, _RESET, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
_ENABLE_PUSH, _INITIAL_WINDOW, _FRAME_SIZE = 2, 4, 5
_FRAME_BYTES = 16_384
_WINDOW_BYTES = 65_535
"""What both sides begin with, as the one before."""
_MOST = 2**31 - 1
_GIVE_BACK = 2**30
"""Bytes of answers after which the server is given room for as many more."""
_REMEMBERED = 64


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """Return a whole frame of HTTP/2."""
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


_HELLO = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(_SETTINGS, 0, 0, _PAIR.pack(_ENABLE_PUSH, 0) + _PAIR.pack(_INITIAL_WINDOW, _MOST))
    + frame(_WINDOW, 0, 0, (_MOST - _WINDOW_BYTES).to_bytes(4, "big"))
)


def call(block: bytes, message: bytes) -> bytes:
    """Return a request: the frame of its headers, of stream 0 as yet, and behind it the message with its prefix.

    Args:
        block: the headers, compressed without a table, so that they are the same on any connection.
        message: of protobuf.
    """
    return frame(_HEADERS, _END_HEADERS, 0, block) + b"\0" + len(message).to_bytes(4, "big") + message


class GrpcConnection(Connection):
    """One connection; its requests are those of ``call``."""

    def __init__(self, owner: Owner, keep: int = 300) -> None:
        super().__init__(owner, keep)
        self._decoder = Decoder(HEAD_BYTES)
        self._known: dict[bytes, dict[bytes, bytes]] = {}
        """Blocks that were decoded while the table was empty, so that they mean the same whenever it is."""
        self._stream = -1
        self._fields: dict[bytes, bytes] = {}
        self._block, self._ends = b"", False
        """Of headers, while their last frame has not come; and whether they are the answer's last."""
        self._unsent = memoryview(b"")
        self._frame_bytes, self._first_window = _FRAME_BYTES, _WINDOW_BYTES
        self._window, self._stream_window = _WINDOW_BYTES, _WINDOW_BYTES
        self._taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say that this is HTTP/2."""
        super().connection_made(transport)
        self._write(_HELLO)

    def send(self, request: bytes) -> None:
        """Send a whole request; nothing else may be out."""
        transport = self._begin()
        self._stream += 2
        self._reusable = self._stream + 2 < _MOST
        self._fields, self._stream_window = {}, self._first_window
        ends = _FRAME.size + int.from_bytes(request[:3], "big")
        self._unsent = memoryview(request)[ends:]
        head = request[:5] + self._stream.to_bytes(4, "big") + request[_FRAME.size : ends]
        transport.write(head + self._data())

    def data_received(self, data: bytes) -> None:
        """Take a piece of what the server sends."""
        try:
            for kind, flags, stream, payload in self._frames(self._buffer + data):
                self._frame(kind, flags, stream, payload)
                if self.over:
                    break
        except (Malformed, HPACKError, struct.error) as error:
            self.abort(f"not an answer by gRPC: {error}")

    def _frames(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield type, flags, stream and payload of each frame that is whole; keep the rest for later."""
        at = 0
        while len(data) - at >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            size, begins = high << 16 | low, at + _FRAME.size
            if size > _FRAME_BYTES:
                raise Malformed(f"{data[at : at + 60]!r}")
            if len(data) - begins < size:
                break
            at = begins + size
            yield kind, flags, stream, data[begins:at]
        self._buffer = data[at:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        ours = self.out and stream == self._stream
        if kind in (_HEADERS, _CONTINUATION):
            self._headers(kind, flags, payload, ours=ours)
        elif kind == _DATA:
            self._take(len(payload))
            if ours:
                self._note(_unpadded(payload, flags))
        elif kind == _WINDOW:
            (more,) = struct.unpack(">I", payload)
            self._widen(0 if stream else more, more if ours else 0)
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._write(frame(_PING, _ACK, 0, payload))
        elif kind == _RESET and ours:
            self.abort(f"the call was reset with HTTP/2's error {int.from_bytes(payload, 'big')}")
        elif kind == _GOAWAY:
            self._leave(int.from_bytes(payload[:4], "big"))
        elif kind == _PUSH:
            raise Malformed("a push, which was not allowed")
        if kind == _DATA and ours and flags & _END_STREAM:
            self._finish()

    # --- an answer ---

    def _headers(self, kind: int, flags: int, payload: bytes, *, ours: bool) -> None:
        if kind == _HEADERS:
            payload = _unpadded(payload, flags)[5 if flags & _PRIORITY else 0 :]
            self._ends = bool(flags & _END_STREAM)
        self._block += payload
        if len(self._block) > HEAD_BYTES:
            raise Malformed(f"its headers have more than {HEAD_BYTES} bytes")
        if not flags & _END_HEADERS:
            return
        fields, self._block = self._decoded(self._block), b""
        if ours:
            self._fields |= fields
            if self._ends:
                self._finish()

    def _decoded(self, block: bytes) -> dict[bytes, bytes]:
        table = self._decoder.header_table.dynamic_entries
        if not table and (known := self._known.get(block)) is not None:
            return known
        alone = not table and not b"\x20" <= block[:1] < b"\x40"  # those set the table's size
        fields = dict(self._decoder.decode(block, raw=True))
        if alone and not table and len(self._known) < _REMEMBERED:
            self._known[block] = fields
        return fields

    def _finish(self) -> None:
        if self._unsent:  # answered before it was asked; the rest of the request is nobody's
            self._reusable = False
        status = self._fields.get(b":status", b"")
        code = self._fields.get(b"grpc-status", b"")
        if status != b"200":
            self._deliver(f"HTTP {status.decode(errors='replace')}")
        elif code == b"0":
            self._deliver("")
        else:
            words = self._fields.get(b"grpc-message", b"") if code else b"an answer without grpc-status"
            self._deliver(f"gRPC {_named(code)}", unquote_to_bytes(words)[: self._keep])

    def _leave(self, last: int) -> None:
        """Let the server go: at once, or when it has answered what it has read."""
        self._reusable = False
        if not self.out or self._stream > last:
            self.abort("the server said goodbye")

    # --- what may be sent, and what may come ---

    def _data(self) -> bytes:
        """Return as much of the request as there is room for, in frames."""
        frames = []
        while self._unsent:
            size = min(len(self._unsent), self._frame_bytes, self._window, self._stream_window)
            if size <= 0:
                break
            piece, self._unsent = self._unsent[:size], self._unsent[size:]
            self._window -= size
            self._stream_window -= size
            frames.append(frame(_DATA, 0 if self._unsent else _END_STREAM, self._stream, piece))
        return b"".join(frames)

    def _widen(self, window: int, stream_window: int) -> None:
        self._window += window
        self._stream_window += stream_window
        if self.out and (data := self._data()):
            self._write(data)

    def _settings(self, payload: bytes) -> None:
        settings = dict(_PAIR.iter_unpack(payload))
        self._frame_bytes = settings.get(_FRAME_SIZE, self._frame_bytes)
        before, self._first_window = self._first_window, settings.get(_INITIAL_WINDOW, self._first_window)
        self._write(frame(_SETTINGS, _ACK, 0))
        self._widen(0, self._first_window - before)

    def _take(self, size: int) -> None:
        self._taken += size
        if self._taken >= _GIVE_BACK:
            self._write(frame(_WINDOW, 0, 0, self._taken.to_bytes(4, "big")))
            self._taken = 0

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _named(code: bytes) -> str:
    number = int(code) if code.isdigit() and len(code) < 3 else _STATUSES.index("UNKNOWN")
    return _STATUSES[number] if number < len(_STATUSES) else str(number)


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED and payload else payload
