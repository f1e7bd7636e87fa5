"""The outline of a patch file: magic, header and segment table, and the caps that a reader holds them to.

Promises: a header that was read is wholly checked (types, ranges, sums), so that later code may use its numbers;
nothing is allocated for a number before it has been checked. Leaves to others: the blocks after the table
(``blocks``, ``windows``). Format: docs/reference/delta-format.md.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from edgemodel.artifact.delta import compression
from edgemodel.artifact.delta.refusal import refuse

MAGIC = b"EDGDELTA"
VERSION = 1
MAX_HEADER = 4096
MAX_SIZE = 1 << 44
"""16 TiB: above any model file, and far below where 64-bit sums overflow."""
MAX_SEGMENTS = 1 << 16
MAX_TABLE = 2 << 20
SAMPLES, SAMPLE = 64, 4096
PIECE = 1 << 18

GAP, NUMBERS, FRESH = 0, 1, 2
"""Kinds of segment: bytes of the skeleton; numbers with a base; numbers without one."""
_RECORD = struct.Struct("<BBHIQQ")
_FRONT = struct.Struct("<8sBHB")


class Bytes(Protocol):
    """Something of a known size that is read by position."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly those bytes, which must be inside."""
        ...


@dataclass(frozen=True, slots=True)
class Header:
    """What a patch says about itself.

    Attributes:
        codec: which one made it and must apply it.
        new: size of the file it rebuilds, in bytes.
        old: size of the base, in bytes; None when there is none.
        base: fingerprint of the base (``fingerprint``), empty when there is none.
    """

    codec: str
    new: int
    old: int | None
    base: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of the new file.

    Attributes:
        kind: ``GAP``, ``NUMBERS`` or ``FRESH``.
        dtype: number of a ``numbers.DTYPES``; 0 for a gap.
        size: in bytes, above 0.
        old: where its base starts in the old file; 0 unless ``NUMBERS``.
    """

    kind: int
    dtype: int
    size: int
    old: int


class PatchReader:
    """Reads a patch front to back and knows at which byte it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.at = 0

    def take(self, length: int, what: str) -> bytes:
        """Return the next ``length`` bytes; refused when the patch ends before."""
        data = self._file.read(length)
        if len(data) != length:
            refuse(f"byte {self.at}: expected {length} bytes of {what}, found {len(data)} before the end")
        self.at += length
        return data

    def pieces(self, length: int, what: str) -> Iterator[bytes]:
        """Yield the next ``length`` bytes in pieces, for what need not be in memory at once."""
        while length:
            taken = min(length, PIECE)
            yield self.take(taken, what)
            length -= taken

    def number(self, width: int, what: str) -> int:
        """Return the next little-endian unsigned integer of ``width`` bytes."""
        return int.from_bytes(self.take(width, what), "little")

    def end(self) -> None:
        """Refuse a patch that goes on."""
        if self._file.read(1):
            refuse(f"byte {self.at}: expected the end, found more bytes")


def write_header(out: BinaryIO, header: Header) -> None:
    """Write magic and header."""
    document = {"codec": header.codec, "new": header.new, "old": header.old, "base": header.base}
    text = json.dumps(document, separators=(",", ":")).encode()
    out.write(_FRONT.pack(MAGIC, VERSION, len(text), 0) + text)


def read_header(patch: PatchReader, codecs: Sequence[str]) -> Header:
    """Read and check magic and header.

    Raises:
        Refused: ``DeltaInvalid``.
    """
    magic, version, length, reserved = _FRONT.unpack(patch.take(_FRONT.size, "magic and version"))
    if magic != MAGIC:
        refuse(f"byte 0: expected the magic {MAGIC!r}, found {magic!r}")
    if version != VERSION or reserved:
        refuse(f"byte 8: expected version {VERSION}, found {version} with flags {reserved}")
    if length > MAX_HEADER:
        refuse(f"byte 9: expected a header of at most {MAX_HEADER} bytes, found {length}")
    try:
        document = json.loads(patch.take(length, "header"))
    except (ValueError, RecursionError):
        refuse(f"byte {_FRONT.size}: expected a header of JSON, found something else")
    if not isinstance(document, dict) or set(document) != {"codec", "new", "old", "base"}:
        refuse("header: expected an object with codec, new, old and base")
    codec, new, old, base = (document[key] for key in ("codec", "new", "old", "base"))
    if codec not in codecs:
        refuse(f"header codec: expected one of {', '.join(codecs)}, found {str(codec)[:40]!r}")
    for name, number in (("new", new), ("old", old)):
        if name == "old" and number is None:
            continue
        if type(number) is not int or not 0 <= number <= MAX_SIZE:
            refuse(f"header {name}: expected a size up to {MAX_SIZE}, found {str(number)[:40]}")
    if not isinstance(base, str) or len(base) > 64 or bool(base) != (old is not None):
        refuse("header base: expected a fingerprint exactly when there is a base")
    return Header(codec, new, old, base)


def fingerprint(base: Bytes) -> str:
    """Return 32 hex digits of sha256 over a base's size and 64 pages spread evenly over it.

    It tells a wrong base early and for little; two files that differ only between the pages pass, and are told apart
    by the digest of what was rebuilt.
    """
    found = hashlib.sha256(base.size.to_bytes(8, "little"))
    for n in range(SAMPLES):
        length = min(SAMPLE, base.size)
        found.update(base.read((base.size - length) * n // (SAMPLES - 1), length))
    return found.hexdigest()[:32]


def write_segments(out: BinaryIO, segments: Sequence[Segment]) -> None:
    """Write the segment table."""
    table = b"".join(_RECORD.pack(s.kind, s.dtype, 0, 0, s.size, s.old) for s in segments)
    packed = compression.pack(table, 9)
    out.write(len(segments).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)


def read_segments(patch: PatchReader, header: Header, widths: dict[int, int]) -> list[Segment]:
    """Read and check the segment table: every range inside the base, sizes that add up to the new file.

    Args:
        patch: stands before the table.
        header: of the same patch.
        widths: bytes of one number by dtype.

    Raises:
        Refused: ``DeltaInvalid``.
    """
    start = patch.at
    count, length = patch.number(4, "segment count"), patch.number(4, "segment table length")
    if count > MAX_SEGMENTS or length > MAX_TABLE:
        refuse(f"byte {start}: expected at most {MAX_SEGMENTS} segments, found {count} in {length} bytes")
    at = patch.at
    table = compression.unpack(patch.take(length, "segment table"), count * _RECORD.size, at)
    segments = []
    total = 0
    for n, (kind, dtype, zero, none, size, old) in enumerate(_RECORD.iter_unpack(table)):
        where = f"segment {n}"
        if kind > FRESH or zero or none:
            refuse(f"{where}: expected a kind up to {FRESH} and no flags, found {kind}")
        if kind == GAP and (dtype or old):
            refuse(f"{where}: expected no dtype and no base for a gap")
        if kind != GAP and dtype not in widths:
            refuse(f"{where}: expected a known dtype, found {dtype}")
        if not 0 < size <= header.new - total or size % widths.get(dtype, 1):
            refuse(f"{where}: expected a size up to {header.new - total} in whole numbers, found {size}")
        if kind == NUMBERS and old > (header.old or 0) - size:
            refuse(f"{where}: expected a base within {header.old} bytes, found {old} + {size}")
        if kind == FRESH and old:
            refuse(f"{where}: expected no base, found {old}")
        total += size
        segments.append(Segment(kind, dtype, size, old))
    if total != header.new:
        refuse(f"segment table: expected sizes that add up to {header.new}, found {total}")
    return segments
