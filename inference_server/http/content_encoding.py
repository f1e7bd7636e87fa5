"""Content-Encoding of HTTP bodies: gzip, deflate and zstd, both ways.

Pure. Promises that no more than the limit and one buffer of the decoder is ever held of a decoded body, whatever the
encoded one claims; that a body cut short, or with something after its end, is refused; and that a response is encoded
only for a client that asked for it. Source: RFC 9110 sections 8.4 and 12.5.3, RFC 9659 (window of zstd).
"""

import sys
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from inference_server.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding

Buffer = bytes | memoryview

IDENTITY = "identity"
# In the order that a tie between a client's preferences is broken.
ENCODINGS = ("zstd", "gzip", "deflate")
ACCEPTED = b", ".join(name.encode("ascii") for name in ENCODINGS)

# zlib's own names for the two formats around the same stream (zlib.h, inflateInit2).
_ZLIB_WINDOW = {"gzip": 31, "deflate": 15}
_LARGEST_WINDOW_LOG = 23
_LEVEL = 1  # edge processors: a third of the time of the default for a tenth more bytes


def encoding_of(header: bytes) -> str:
    """Return the encoding that a Content-Encoding header names; IDENTITY for an empty one.

    Raises:
        UnsupportedEncoding: It names another, or several.
    """
    name = header.strip().lower().decode("latin-1").removeprefix("x-") or IDENTITY
    if name == IDENTITY or name in ENCODINGS:
        return name
    raise UnsupportedEncoding(
        f"Content-Encoding: expected one of {', '.join(ENCODINGS)}, or none; found {name[:40]!r}"
    )


def decode(encoding: str, body: Buffer, limit: int) -> bytes:
    """Return a decoded body.

    Args:
        encoding: One of ENCODINGS.
        body: The encoded bytes.
        limit: Most bytes that may come out.

    Raises:
        BodyTooLarge: More would come out.
        InvalidRequest: The bytes are damaged, cut short, or followed by others.
    """
    pieces: list[bytes] = []
    room = limit
    rest: Buffer = body
    while True:
        # Both formats allow several streams one after the other.
        piece, rest = _decode_stream(encoding, rest, room)
        pieces.append(piece)
        room -= len(piece)
        if not rest:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(pieces) == _MOST_STREAMS or encoding == "deflate":
            raise InvalidRequest(
                f"body: expected one {encoding} stream, found {len(rest)} bytes after its end"
            )


# No client writes so many; each costs a decoder.
_MOST_STREAMS = 64


def _decode_stream(encoding: str, body: Buffer, room: int) -> tuple[bytes, bytes]:
    decoder: Any
    failures: tuple[type[Exception], ...]
    if encoding == "zstd":
        zstd = _zstd()
        bounds = {zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW_LOG}
        decoder, failures = zstd.ZstdDecompressor(options=bounds), (zstd.ZstdError, EOFError)
    else:
        decoder, failures = zlib.decompressobj(_ZLIB_WINDOW[encoding]), (zlib.error,)
    try:
        piece: bytes = decoder.decompress(body, room + 1)
    except failures as error:
        raise InvalidRequest(f"body: expected {encoding} data: {str(error)[:200]}") from None
    if len(piece) > room:
        raise BodyTooLarge("body: expected no more bytes when decoded than the server takes, found more")
    if not decoder.eof:
        raise InvalidRequest(f"body: expected the end of the {encoding} data, found a part of it")
    return piece, decoder.unused_data


def encode(encoding: str, parts: Iterable[Buffer]) -> bytes:
    """Return the parts of a body, joined and encoded.

    Args:
        encoding: One of ENCODINGS.
        parts: The body.
    """
    compress, flush = _encoder(encoding)
    return b"".join([*(compress(part) for part in parts), flush()])


def _encoder(encoding: str) -> tuple[Callable[[Buffer], bytes], Callable[[], bytes]]:
    if encoding == "zstd":
        frame = _zstd().ZstdCompressor(level=_LEVEL)
        return frame.compress, frame.flush
    stream = zlib.compressobj(_LEVEL, wbits=_ZLIB_WINDOW[encoding])
    return stream.compress, stream.flush


def _zstd() -> Any:
    """Return the module, loaded for the first client that speaks it: it takes 0.6 MB."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


@lru_cache(maxsize=64)
def preferred(accept: bytes) -> str:
    """Return the encoding to answer with, by an Accept-Encoding header: IDENTITY unless the client prefers another.

    A client that does not speak of identity is taken to prefer whatever it does name.
    """
    weights: dict[str, float] = {}
    for item in accept.decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        if name:
            weights[name.removeprefix("x-")] = _weight(parameters)
    others = weights.get("*", 0.0)
    best, most = IDENTITY, weights.get(IDENTITY, 0.0)
    for name in ENCODINGS:
        weight = weights.get(name, others)
        if weight > most or (weight == most > 0 and best == IDENTITY):
            best, most = name, weight
    return best


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0
