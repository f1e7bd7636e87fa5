"""A file as numbers and what lies between them: pairs old and new tensors, and walks a segment table both ways.

Promises: every byte of the new file is in exactly one segment; tensors are paired by name, then in order of the file
among those of equal dtype and size, so that renamed or moved weights are found. What no tensor covers is the
skeleton, coded as one run in ``windows`` against the skeleton of the old file. Format:
docs/reference/delta-format.md.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from edgemodel.artifact.delta import windows
from edgemodel.artifact.delta.base import Skeleton
from edgemodel.artifact.delta.blocks import BLOCK, Blocks
from edgemodel.artifact.delta.layout import (
    FRESH,
    GAP,
    MAX_SEGMENTS,
    NUMBERS,
    Bytes,
    Header,
    PatchReader,
    Segment,
    read_segments,
    write_segments,
)
from edgemodel.artifact.delta.numbers import DTYPES, NUMBER_OF, WIDTHS
from edgemodel.artifact.delta.quant import GROUP, Steps
from edgemodel.artifact.delta.tensors import TensorSpan

SMALLEST = 256
"""A tensor with fewer bytes stays in the skeleton, where its bytes cost less than its segment would."""
SKELETON_LEVEL = 19
LARGE_SKELETON = 8 << 20
"""Above this the skeleton is coded at the level of the rest: level 19 takes a second for 5 MB."""


def pair(old: Sequence[TensorSpan], new: Sequence[TensorSpan]) -> list[tuple[TensorSpan, TensorSpan | None]]:
    """Return the new tensors in file order, each with the old one it is to be subtracted from."""
    by_name: dict[tuple[str, str, int], deque[TensorSpan]] = defaultdict(deque)
    for span in sorted(old, key=lambda span: span.offset):
        by_name[span.name, span.dtype, span.size].append(span)
    found: dict[int, TensorSpan] = {}
    ordered = sorted(new, key=lambda span: span.offset)
    for span in ordered:
        if same := by_name.get((span.name, span.dtype, span.size)):
            found[span.offset] = same.popleft()
    rest: dict[tuple[str, int], deque[TensorSpan]] = defaultdict(deque)
    for span in sorted((s for left in by_name.values() for s in left), key=lambda span: span.offset):
        rest[span.dtype, span.size].append(span)
    for span in ordered:
        if span.offset not in found and (alike := rest.get((span.dtype, span.size))):
            found[span.offset] = alike.popleft()
    return [(span, found.get(span.offset)) for span in ordered]


def lay_segments(
    old: Sequence[TensorSpan], new: Sequence[TensorSpan], size: int, base: int | None
) -> list[Segment]:
    """Return the segments of a file of ``size`` bytes; tensors that overlap, stick out or are tiny count as skeleton."""
    usable_old = [s for s in old if base is not None and s.offset + s.size <= base]
    segments: list[Segment] = []
    end = 0
    for span, was in pair(usable_old, [s for s in new if _usable(s, size)]):
        if span.offset < end or len(segments) + 3 > MAX_SEGMENTS:
            continue
        if span.offset > end:
            segments.append(Segment(GAP, 0, span.offset - end, 0))
        kind = FRESH if was is None else NUMBERS
        segments.append(Segment(kind, NUMBER_OF[span.dtype], span.size, was.offset if was else 0))
        end = span.offset + span.size
    if size > end:
        segments.append(Segment(GAP, 0, size - end, 0))
    return segments


def _usable(span: TensorSpan, size: int) -> bool:
    number = NUMBER_OF.get(span.dtype)
    if number is None or span.size < SMALLEST or span.offset + span.size > size:
        return False
    return span.size % WIDTHS[number] == 0


def _ranges(segments: Sequence[Segment]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Ranges of numbers in the old file and in the new one."""
    old, new, at = [], [], 0
    for segment in segments:
        if segment.kind == NUMBERS:
            old.append((segment.old, segment.size))
        if segment.kind != GAP:
            new.append((at, segment.size))
        at += segment.size
    return old, new


def encode_segments(
    before: Bytes | None,
    after: Bytes,
    out: BinaryIO,
    old_tensors: Sequence[TensorSpan],
    new_tensors: Sequence[TensorSpan],
    level: int,
    steps: Mapping[int, Steps],
) -> None:
    """Write segment table, skeleton and numbers; ``steps`` of a tensor (``quant``) by its offset in the new file."""
    segments = lay_segments(old_tensors, new_tensors, after.size, before.size if before is not None else None)
    write_segments(out, segments)
    old, new = _ranges(segments)
    skeleton = Skeleton(after, new)
    effort = max(level, SKELETON_LEVEL if skeleton.size <= LARGE_SKELETON else 3)
    # The windows of the skeleton stand where the decoder first needs them: it must not hold them all.
    skeletons = _SkeletonWriter(Skeleton(before, old) if before is not None else None, skeleton, effort)
    blocks = Blocks()
    at = 0
    for segment in segments:
        if segment.kind == GAP:
            skeletons.write_up_to(segment.size, out)
        else:
            dtype = DTYPES[segment.dtype]
            whole = steps.get(at)
            for start in range(0, segment.size, BLOCK):
                length = min(BLOCK, segment.size - start)
                was = None
                if segment.kind == NUMBERS:
                    assert before is not None
                    was = before.read(segment.old + start, length)
                # Blocks begin at whole groups: both are powers of two.
                first, last = start // dtype.width // GROUP, -(-(start + length) // (dtype.width * GROUP))
                own = whole[first:last] if whole is not None else None
                out.write(blocks.encode(was, after.read(at + start, length), dtype, level, own))
        at += segment.size


class _SkeletonWriter:
    """Writes the next window of the skeleton whenever a gap reaches into it."""

    def __init__(self, old: Bytes | None, new: Bytes, level: int) -> None:
        self._old, self._new, self._level = old, new, level
        self._windows = windows.spans(old, new)
        self._needed = self._written = 0

    def write_up_to(self, more: int, out: BinaryIO) -> None:
        self._needed += more
        while self._written < self._needed:
            window = next(self._windows)
            windows.encode_window(self._old, self._new, window, out, method=windows.ZSTD, level=self._level)
            self._written += window.size


def decode_segments(before: Bytes | None, patch: PatchReader, header: Header) -> Iterator[bytes | memoryview]:
    """Yield the new file in pieces.

    Raises:
        Refused: ``DeltaInvalid``.
    """
    segments = read_segments(patch, header, WIDTHS)
    old, _ = _ranges(segments)
    gaps = sum(segment.size for segment in segments if segment.kind == GAP)
    skeleton = _Pieces(windows.decode(Skeleton(before, old) if before is not None else None, patch, gaps))
    blocks = Blocks()
    for segment in segments:
        if segment.kind == GAP:
            yield from skeleton.take(segment.size)
            continue
        dtype = DTYPES[segment.dtype]
        for start in range(0, segment.size, BLOCK):
            length = min(BLOCK, segment.size - start)
            was = None
            if segment.kind == NUMBERS:
                assert before is not None
                was = before.read(segment.old + start, length)
            yield blocks.decode(patch, was, dtype, length)


class _Pieces:
    """Cuts pieces of any size to the sizes asked for."""

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._left:
                self._left = memoryview(next(self._pieces))
            cut, self._left = self._left[:size], self._left[size:]
            size -= len(cut)
            yield cut
