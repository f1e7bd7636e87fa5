"""zstd frames with every bound set: how large a window, how many bytes come out, and that nothing follows.

Promises: ``unpack`` returns exactly the size asked for or refuses, and holds no more than that size and one window.
Levels and parameters are the encoder's business; the decoder takes any zstd frame.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from edgemodel.artifact.delta.refusal import refuse

if TYPE_CHECKING or __import__("sys").version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

WINDOW_LOG = 25
"""A frame may look back 32 MiB: the largest window of this format, and what bounds a decoder's memory."""
PIECE = 1 << 20
_BOUNDS: Any = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
_P = zstd.CompressionParameter
SHORTEST = 8
"""A shorter prefix is no prefix: zstd takes none. Part of the format."""
ENTROPY_ONLY = 0
"""Level that looks for long repeats only: noise has no others, and short ones, there by chance, cost more than they save."""


def pack(data: bytes | memoryview, level: int, prefix: bytes | None = None) -> bytes:
    """Return ``data`` as one zstd frame, with ``prefix`` in front of it as history."""
    options: dict[int, int] = {_P.compression_level: level}
    if level == ENTROPY_ONLY:
        options = {_P.compression_level: 1, _P.min_match: 7, _P.strategy: zstd.Strategy.fast}
    if prefix is None or len(prefix) < SHORTEST:
        return zstd.compress(data, options=options)
    reach = max(10, (len(prefix) + len(data)).bit_length())
    options |= {
        _P.window_log: min(reach, WINDOW_LOG),
        _P.enable_long_distance_matching: 1,
        _P.checksum_flag: 1,
    }
    return zstd.compress(data, options=options, zstd_dict=zstd.ZstdDict(prefix, is_raw=True).as_prefix)


def unpack(frame: bytes | memoryview, size: int, at: int) -> bytes:
    """Return the ``size`` bytes of one frame that stands at byte ``at`` of its patch.

    Raises:
        Refused: ``DeltaInvalid``; it is no frame, holds another number of bytes, or wants too much memory.
    """
    decoder = zstd.ZstdDecompressor(options=_BOUNDS)
    try:
        data = decoder.decompress(frame, size + 1)
    except zstd.ZstdError as error:
        refuse(f"byte {at}: expected a zstd frame, found: {error}")
    if len(data) != size or not decoder.eof or decoder.unused_data:
        found = "more" if len(data) > size else f"{len(data)}"
        refuse(f"byte {at}: expected one zstd frame of {size} bytes, found {found}")
    return data


class Prefix:
    """Old bytes as history for one frame; the only copy of them that is kept."""

    def __init__(self, data: bytes) -> None:
        self.raw = zstd.ZstdDict(data, is_raw=True).as_prefix if len(data) >= SHORTEST else None


def stream(
    frame: Iterable[bytes], size: int, at: int, prefix: Prefix | None, *, exactly: bool = True
) -> Iterator[bytes]:
    """Yield the ``size`` bytes of one frame, which comes in pieces, in pieces of at most 1 MiB.

    Args:
        frame: the frame's pieces.
        size: how many bytes it holds, or may hold at most.
        at: where the frame stands in its patch, for the refusal.
        prefix: its history.
        exactly: whether it must hold ``size`` bytes.

    Raises:
        Refused: ``DeltaInvalid``; as ``unpack``.
    """
    decoder = zstd.ZstdDecompressor(zstd_dict=prefix.raw if prefix else None, options=_BOUNDS)
    left = size
    over = False
    for piece in frame:
        if decoder.eof:
            over = True
            break
        more = piece
        while True:
            try:
                data = decoder.decompress(more, min(PIECE, left + 1))
            except zstd.ZstdError as error:
                refuse(f"byte {at}: expected a zstd frame made for this base, found: {error}")
            left -= len(data)
            if left < 0:
                refuse(f"byte {at}: expected a zstd frame of at most {size} bytes, found more")
            if data:
                yield data
            if decoder.eof or decoder.needs_input:
                break
            more = b""
    if over or decoder.unused_data or not decoder.eof or (left and exactly):
        refuse(
            f"byte {at}: expected one whole zstd frame of {size} bytes, found {size - left} and another end"
        )
