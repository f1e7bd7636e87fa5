"""What gRPC adds to HTTP/2: length-prefixed messages, statuses in trailers, deadlines in a header.

Pure. Promises that a message is never larger than the limit, compressed or not, and that whatever text an error has
travels as valid trailers. Source: grpc/doc/PROTOCOL-HTTP2.md and compression.md.
"""

import re
import zlib
from enum import IntEnum

from inference_server.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding
from inference_server.http2.headers import STATUS_200, literal

PREFIX_BYTES = 5
_MESSAGE_CHARACTERS = 1000
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
# Printable ASCII stands for itself in grpc-message, "%" excepted.
_ESCAPED = re.compile(rb"[^ -$&-~]")
# Window bits that make zlib read gzip and nothing else, and the zlib format, which gRPC calls deflate.
_INFLATE_BITS = {b"gzip": 31, b"deflate": 15}
ENCODINGS = b"identity,deflate,gzip"


class Code(IntEnum):
    """grpc/doc/statuscodes.md."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


OK_HEAD = STATUS_200 + literal([(b"content-type", b"application/grpc")])
OK_TRAILERS = literal([(b"grpc-status", b"0")])


def frame_message(*parts: bytes | memoryview) -> bytes:
    """Return a message with its prefix, uncompressed; copies each part once."""
    return b"".join((b"\0", sum(map(len, parts)).to_bytes(4, "big"), *parts))


def error_trailers(code: Code, message: str) -> bytes:
    """Return the trailers of an answer that ends with an error."""
    escaped = _ESCAPED.sub(
        lambda found: b"%%%02X" % found[0][0], message[:_MESSAGE_CHARACTERS].encode("utf-8", "replace")
    )
    fields = [(b"grpc-status", b"%d" % code), (b"grpc-message", escaped.strip(b" "))]
    if code == Code.UNIMPLEMENTED:
        fields.append((b"grpc-accept-encoding", ENCODINGS))
    return literal(fields)


def error_alone(code: Code, message: str) -> bytes:
    """Return the one header block of an answer that is nothing but an error ("trailers-only")."""
    return OK_HEAD + error_trailers(code, message)


def read_timeout(value: bytes) -> float:
    """Return the seconds in a `grpc-timeout` header.

    Raises:
        InvalidRequest: It is none.
    """
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise InvalidRequest("grpc-timeout: expected at most eight digits and one of H, M, S, m, u, n")
    return int(match[1]) * _UNITS[match[2]]


def next_size(body: bytearray, limit: int) -> int | None:
    """Return the size of the message that begins `body`, None while its prefix is not there.

    Raises:
        BodyTooLarge: It is larger than `limit`.
    """
    if len(body) < PREFIX_BYTES:
        return None
    size = int.from_bytes(body[1:PREFIX_BYTES], "big")
    if size > limit:
        raise BodyTooLarge(f"message: expected at most {limit} bytes, found {size}")
    return size


def open_message(compressed: int, message: memoryview, encoding: bytes, limit: int) -> memoryview:
    """Return a message as it was before it was compressed.

    Args:
        compressed: The first byte of its prefix.
        message: What follows the prefix.
        encoding: `grpc-encoding` of the request, b"identity" when it has none.
        limit: Most bytes that may come out.

    Raises:
        InvalidRequest: The flag is neither 0 nor 1, or the data is damaged.
        UnsupportedEncoding: Compressed in a way that is unknown here, or that the request does not name.
        BodyTooLarge: More comes out.
    """
    if compressed == 0:
        return message
    if compressed != 1:
        raise InvalidRequest(f"message: expected 0 or 1 as its first byte, found {compressed}")
    bits = _INFLATE_BITS.get(encoding)
    if bits is None:
        raise UnsupportedEncoding(
            f"grpc-encoding: expected one of {ENCODINGS.decode()}, found {encoding[:40].decode('ascii', 'replace')}"
        )
    inflate = zlib.decompressobj(bits)
    try:
        plain = inflate.decompress(message, limit + 1)
    except zlib.error:
        raise InvalidRequest(f"message: expected {encoding.decode()}, found damaged data") from None
    if len(plain) > limit:
        raise BodyTooLarge(f"message: expected at most {limit} bytes decompressed, found more")
    if not inflate.eof or inflate.unused_data:
        raise InvalidRequest(f"message: expected one whole {encoding.decode()} stream")
    return memoryview(plain)


def whole_message(body: bytearray, encoding: bytes, limit: int) -> memoryview:
    """Return the only message of a request that has one.

    Raises:
        InvalidRequest: There is none, half of one, or more than one.
        BodyTooLarge, UnsupportedEncoding: As `next_size` and `open_message`.
    """
    size = next_size(body, limit)
    if size is None or len(body) != PREFIX_BYTES + size:
        raise InvalidRequest("request: expected one whole message")
    return open_message(body[0], memoryview(body)[PREFIX_BYTES:], encoding, limit)
