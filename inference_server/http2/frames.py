"""HTTP/2 frames and settings as bytes, and the two ways in which a peer can break the protocol.

Pure. Holds what RFC 9113 numbers and lays out, and the checks that need nothing but the frame itself; what a frame
means for a connection is `connection`'s.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# length (as 8 + 16 bits), type, flags, stream (RFC 9113 section 4.1).
HEAD = struct.Struct(">BHBBI")
HEAD_BYTES = HEAD.size
WORD = struct.Struct(">I")
SETTING = struct.Struct(">HI")

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

# What both sides begin with (sections 6.5.2 and 6.9.2).
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_BYTES = 16_384
MAX_WINDOW = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1


class ErrorCode(IntEnum):
    """Section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """The peer broke the protocol so that the connection cannot go on: GOAWAY with `code`."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamFault(Exception):
    """The peer broke the protocol on one stream: RST_STREAM with `code`."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class PeerSettings:
    """What the peer told of itself that matters to who sends."""

    initial_window: int = DEFAULT_WINDOW
    frame_bytes: int = DEFAULT_FRAME_BYTES


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    return HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def settings_frame(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*pair) for pair in values.items()))


def reset_frame(stream: int, code: ErrorCode) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, WORD.pack(code))


def goaway_frame(last_stream: int, code: ErrorCode, message: str = "") -> bytes:
    """Return a GOAWAY frame; the message is for whoever reads the peer's log."""
    return frame(GOAWAY, 0, 0, WORD.pack(last_stream) + WORD.pack(code) + message.encode()[:200])


def window_frame(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, WORD.pack(increment))


def unpadded(payload: memoryview, flags: int) -> memoryview:
    """Return the payload of a DATA or HEADERS frame without its padding.

    Raises:
        ConnectionFault: The padding is as long as the rest of the frame, or longer (section 6.1).
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding: expected less than the frame")
    return payload[1 : len(payload) - payload[0]]


def header_block(payload: memoryview, flags: int, stream: int) -> memoryview:
    """Return the fragment of a header block in a HEADERS frame: without padding, its priority looked at and ignored.

    Raises:
        ConnectionFault: The frame is too short for its flags, or the stream is said to depend on itself (RFC 7540
            section 5.3.1, which asks for less; but the block would have to be decoded all the same).
    """
    payload = unpadded(payload, flags)
    if not flags & HAS_PRIORITY:
        return payload
    if len(payload) < 5:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS: expected five bytes of priority")
    if WORD.unpack_from(payload)[0] & MAX_STREAM_ID == stream:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "priority: a stream cannot depend on itself")
    return payload[5:]


def check_length(length: int, most: int) -> None:
    """Accept the length of a frame.

    Raises:
        ConnectionFault: It is more than was said to be taken (section 4.2).
    """
    if length > most:
        raise ConnectionFault(
            ErrorCode.FRAME_SIZE_ERROR, f"frame: expected at most {most} bytes, found {length}"
        )


def check_priority(payload: memoryview, stream: int) -> None:
    """Accept a PRIORITY frame, which has no effect (section 5.3.2).

    Raises:
        StreamFault: It has another size, or the stream is said to depend on itself.
    """
    if len(payload) != 5:
        raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY: expected five bytes")
    if WORD.unpack_from(payload)[0] & MAX_STREAM_ID == stream:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "priority: a stream cannot depend on itself")


def word(payload: memoryview, what: str) -> int:
    """Return the payload of a frame that is one number of 32 bits.

    Raises:
        ConnectionFault: It has another size.
    """
    if len(payload) != WORD.size:
        raise ConnectionFault(
            ErrorCode.FRAME_SIZE_ERROR, f"{what}: expected {WORD.size} bytes, found {len(payload)}"
        )
    return int(WORD.unpack(payload)[0])


def read_settings(payload: memoryview) -> Iterator[tuple[int, int]]:
    """Yield the settings in a SETTINGS frame, those of them that are defined known to be in their range.

    Raises:
        ConnectionFault: A size or a value that section 6.5 forbids.
    """
    if len(payload) % SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS: expected six bytes for each setting")
    for key, value in SETTING.iter_unpack(payload):
        if key == ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH: expected 0 or 1, found {value}")
        if key == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE: expected below 2^31, found {value}"
            )
        if key == MAX_FRAME_SIZE and not DEFAULT_FRAME_BYTES <= value < 2**24:
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE: expected 16384 to 2^24-1, found {value}"
            )
        yield key, value
