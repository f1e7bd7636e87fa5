"""A run of bytes in windows, each rebuilt from a stretch of the base: codecs ``patch-from`` and ``hdiff``, and skeletons.

Promises: a decoder holds one stretch of the base, one window and its patch, never more than the caps below; an
encoder's search is bounded alike. A file of up to 24 MiB with a base of up to 24 MiB is one window. Format:
docs/reference/delta-format.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from edgemodel.artifact.delta import compression
from edgemodel.artifact.delta.layout import Bytes, PatchReader
from edgemodel.artifact.delta.refusal import refuse

WHOLE = 24 << 20
"""Most bytes of one window, and of its stretch of the base. Part of the format."""
HDIFF_WHOLE = 16 << 20
"""The same where hdiff is at work, which holds base, patch and window all at once."""
WINDOW = 8 << 20
SMALLEST = 1 << 20
"""Every window but the last has at least so many bytes: a thousand tiny ones could each ask for a large stretch."""
MARGIN = 4 << 20
"""A window of a larger file looks this far around where it should be in the base."""
COPY, ZSTD, HDIFF = 0, 1, 2
PIECE = 1 << 20
PROBE = 64
SLACK = 1 << 20
"""A frame may be so much longer than its window, and an hdiff patch than half of it; one that is longer saves nothing."""
_HDIFF_MAGIC = b"HDIFF13"


@dataclass(frozen=True, slots=True)
class Window:
    """One window of the new run and the stretch of the base that it is coded against."""

    start: int
    size: int
    old: int
    length: int


def spans(old: Bytes | None, new: Bytes, most: int = WHOLE) -> Iterator[Window]:
    """Yield the windows an encoder cuts ``new`` into."""
    shift = 0
    whole = new.size <= most and (old is None or old.size <= most)
    step = most if whole else WINDOW
    for start in range(0, new.size, step):
        size = min(step, new.size - start)
        if old is None:
            yield Window(start, size, 0, 0)
        elif whole:
            yield Window(start, size, 0, old.size)
        else:
            shift = _find_shift(old, new.read(start, size), start, shift, new.size)
            first = min(max(0, start + shift - MARGIN), old.size)
            last = min(old.size, max(0, start + shift + size + MARGIN))
            yield Window(start, size, first, max(0, last - first))


def encode(old: Bytes | None, new: Bytes, out: BinaryIO, *, method: int, level: int) -> None:
    """Write all windows of ``new``."""
    for window in spans(old, new, HDIFF_WHOLE if method == HDIFF else WHOLE):
        encode_window(old, new, window, out, method=method, level=level)


def encode_window(
    old: Bytes | None, new: Bytes, window: Window, out: BinaryIO, *, method: int, level: int
) -> None:
    """Write one window."""
    data = new.read(window.start, window.size)
    stretch = old.read(window.old, window.length) if old is not None and window.length else b""
    offset, length = window.old, len(stretch)
    same = stretch.find(data)
    if same >= 0:
        kind, offset, length, payload = COPY, offset + same, len(data), b""
    elif method == HDIFF and stretch and (diff := _hdiff(stretch, data)):
        kind, payload = HDIFF, compression.pack(diff, level)
    else:
        kind, payload = ZSTD, compression.pack(data, level, stretch or None)
    out.write(bytes([kind]) + offset.to_bytes(8, "little"))
    for number in (length, len(data), len(payload)):
        out.write(number.to_bytes(4, "little"))
    out.write(payload)


def _hdiff(stretch: bytes, data: bytes) -> bytes:
    """Return an uncompressed hdiff patch, empty when it is too long for a decoder to hold."""
    import hdiffpatch

    diff: bytes = hdiffpatch.diff(stretch, data, None, validate=False)
    return diff if len(diff) <= len(data) // 2 + SLACK else b""


def _find_shift(old: Bytes, data: bytes, start: int, shift: int, size: int) -> int:
    """Guess by how much this window's bytes moved since the old file: as before, not at all, or as the end did."""
    candidates = list(dict.fromkeys((shift, 0, old.size - size)))
    probes = range(0, max(1, len(data) - PROBE), max(1, len(data) // 32))

    def hits(candidate: int) -> int:
        found = 0
        for at in probes:
            place = start + at + candidate
            if 0 <= place <= old.size - PROBE:
                found += old.read(place, PROBE) == data[at : at + PROBE]
        return found

    return max(candidates, key=hits)


def decode(old: Bytes | None, patch: PatchReader, size: int) -> Iterator[bytes | memoryview]:
    """Yield the ``size`` bytes of the run in pieces of at most 1 MiB.

    Raises:
        Refused: ``DeltaInvalid``.
    """
    left = size
    while left:
        at = patch.at
        kind, offset = patch.number(1, "window kind"), patch.number(8, "window offset")
        length, count, packed = (patch.number(4, f"window {what}") for what in ("stretch", "size", "payload"))
        most = HDIFF_WHOLE if kind == HDIFF else WHOLE
        if not min(left, SMALLEST) <= count <= min(left, most):
            least, greatest = min(left, SMALLEST), min(left, most)
            refuse(f"byte {at}: expected a window of {least} to {greatest} bytes, found {count}")
        if length > most or offset > (old.size if old is not None else 0) - length:
            have = old.size if old is not None else 0
            refuse(f"byte {at}: expected a stretch inside {have} bytes of base, found {offset} + {length}")
        if kind == COPY:
            if packed or length != count or old is None:
                refuse(f"byte {at}: expected a copy as long as its window, found {length} for {count}")
            for start in range(0, count, PIECE):
                yield old.read(offset + start, min(PIECE, count - start))
        elif kind in (ZSTD, HDIFF):
            if packed > count + SLACK:
                refuse(f"byte {at}: expected a payload of at most {count + SLACK} bytes, found {packed}")
            frame = patch.at
            payload = patch.pieces(packed, "window")
            if kind == ZSTD:
                prefix = compression.Prefix(old.read(offset, length)) if old is not None and length else None
                yield from compression.stream(payload, count, frame, prefix)
                prefix = None  # before the next one is read
            else:
                stretch = old.read(offset, length) if old is not None else b""
                yield from _decode_hdiff(stretch, payload, count, frame)
                stretch = b""
            if patch.at != frame + packed:
                refuse(f"byte {patch.at}: expected a payload of {packed} bytes, found its frame end before")
        else:
            refuse(f"byte {at}: expected a window kind up to {HDIFF}, found {kind}")
        left -= count


def _decode_hdiff(stretch: bytes, payload: Iterator[bytes], count: int, at: int) -> Iterator[memoryview]:
    diff = b"".join(compression.stream(payload, count // 2 + SLACK, at, None, exactly=False))
    _check_hdiff(diff, len(stretch), count, at)
    import hdiffpatch  # here, as it takes 40 ms to load, and other codecs do without

    try:
        data = hdiffpatch.apply(stretch, diff)
    except (hdiffpatch.HDiffPatchError, MemoryError, ValueError) as error:
        refuse(f"byte {at}: expected an hdiff patch for this base, found: {error}")
    if len(data) != count:
        refuse(f"byte {at}: expected {count} bytes from an hdiff patch, found {len(data)}")
    view = memoryview(data)
    for start in range(0, count, PIECE):
        yield view[start : start + PIECE]


def _check_hdiff(diff: bytes, old: int, new: int, at: int) -> None:
    """Hold the sizes an hdiff patch states against the window's, before anything is allocated for them.

    Its head (sisong/HDiffPatch libHDiffPatch/HDiff/private_diff/limit_mem_diff): magic ``HDIFF13``, ``&``, the name of a
    compressor, 0, then new size and old size as big-endian numbers of 7 bits a byte.
    """
    mark = _HDIFF_MAGIC + b"&\0"
    if not diff.startswith(mark):
        refuse(f"byte {at}: expected an uncompressed hdiff patch, found {diff[:16]!r}")
    position = len(mark)
    sizes = []
    for _ in range(2):
        number = 0
        for _ in range(10):
            if position >= len(diff):
                refuse(f"byte {at}: expected two sizes in the hdiff patch, found its end")
            octet = diff[position]
            position += 1
            number = number << 7 | octet & 127
            if octet < 128:
                break
        sizes.append(number)
    if sizes != [new, old]:
        refuse(
            f"byte {at}: expected an hdiff patch from {old} to {new} bytes, found {sizes[1]} to {sizes[0]}"
        )
