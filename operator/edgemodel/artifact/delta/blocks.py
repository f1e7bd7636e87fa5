"""One block of numbers as bytes of a patch, and back: the codecs ``ulp`` (with the old numbers) and ``planes`` (without).

Promises: ``decode`` gives exactly the numbers ``encode`` was given, for every bit pattern, if the base is the same;
it reads no more of a patch than the block has and fills no more than the block's size. Format:
docs/reference/delta-format.md.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgemodel.artifact.delta import planes, quant
from edgemodel.artifact.delta.layout import PatchReader
from edgemodel.artifact.delta.numbers import (
    Dtype,
    Octets,
    Scratch,
    Words,
    choose_edges,
    classes,
    exponents,
    order_in_place,
    rotate_in_place,
    unorder_in_place,
    unzigzag_in_place,
    zigzag_in_place,
)
from edgemodel.artifact.delta.refusal import refuse

BLOCK = 1 << 20
"""Bytes of numbers in one block: enough for classes of a useful size, few enough for a cache. Part of the format."""
SAME, MOVED, FRESH, STEPPED, PARTLY = 0, 1, 2, 3, 4
"""Kinds of block: as in the base; differences from it; no base used; even steps from it (``quant``); some rows only."""
ROW = 32
"""Numbers that are the same or not together, in a block that moved partly: the embeddings of words that no example
had, the weights of a frozen head. Part of the format."""
FEW_ROWS_LEVEL = 9
"""Integers of few rows have repeats, and being few leave time to search for them."""
MOST_CLASSES = 16
FEWEST = 256
"""A plane is not parted for fewer numbers, or for less than an eighth of them. Part of the format."""
Flags = NDArray[np.bool_]


@dataclass
class Blocks:
    """Encodes and decodes blocks; keeps the buffers of each dtype."""

    classes: int = 8
    _scratch: dict[str, Scratch] = field(default_factory=dict)

    def _buffers(self, dtype: Dtype) -> Scratch:
        if dtype.name not in self._scratch:
            self._scratch[dtype.name] = Scratch(dtype, BLOCK // dtype.width)
        return self._scratch[dtype.name]

    def encode(
        self, old: bytes | None, new: bytes, dtype: Dtype, level: int, steps: quant.Steps | None = None
    ) -> bytes:
        """Return the block of ``new``; ``old`` has the same size, or is None for numbers without a base.

        ``steps`` are those in which the weights were moved, when they were moved so (``quant``).
        """
        if old == new:
            return bytes([SAME])
        if old is None:
            return self._encode_fresh(new, dtype, level)
        if steps is not None and (stepped := quant.encode(old, new, steps, dtype, level)) is not None:
            return bytes([STEPPED]) + stepped
        moved = self._encode_partly(old, new, dtype, level)
        if len(moved) * 5 > len(new) * 4:
            return min(moved, self._encode_fresh(new, dtype, level), key=len)
        return moved

    def _encode_partly(self, old: bytes, new: bytes, dtype: Dtype, level: int) -> bytes:
        """Leave out the rows that stayed, if they are many: they are cheap to name and dear among the others."""
        was, now = (np.frombuffer(data, dtype.word) for data in (old, new))
        count = len(was) // ROW * ROW
        was, now = was[:count].reshape(-1, ROW), now[:count].reshape(-1, ROW)
        moved = (was != now).any(axis=1)
        stayed = len(moved) - int(np.count_nonzero(moved))
        if stayed * 32 < len(moved) or not stayed:
            return self._encode_moved(old, new, dtype, level)
        tail = count * dtype.width
        inner = (was[moved].tobytes() + old[tail:], now[moved].tobytes() + new[tail:])
        mask = planes.encode(np.packbits(moved, bitorder="little"), level)
        if not inner[0]:
            return bytes([PARTLY]) + mask
        if dtype.exponent is None and len(inner[0]) * 2 < len(new):
            level = max(level, FEW_ROWS_LEVEL)
        return bytes([PARTLY]) + mask + self._encode_moved(*inner, dtype, level)[1:]

    def _encode_moved(self, old: bytes, new: bytes, dtype: Dtype, level: int) -> bytes:
        scratch = self._buffers(dtype)
        was = np.frombuffer(old, dtype.word)
        count = len(was)
        sign, ordered, words = scratch.sign[:count], scratch.other[:count], scratch.words[:count]
        out = [bytes([MOVED])]
        groups = None
        if dtype.exponent is not None:
            key = exponents(was, dtype, scratch)
            edges = choose_edges(key, self.classes)
            out.append(bytes([len(edges), *edges]))
            if edges:
                groups = classes(key, edges, scratch)
        np.copyto(ordered, was)
        np.copyto(words, np.frombuffer(new, dtype.word))
        order_in_place(ordered, dtype, sign)
        order_in_place(words, dtype, sign)
        np.subtract(words, ordered, out=words)
        zigzag_in_place(words, sign)
        for part in (words,) if groups is None else [words[group] for group in groups]:
            out.extend(_planes(part, dtype, level))
        return b"".join(out)

    def _encode_fresh(self, new: bytes, dtype: Dtype, level: int) -> bytes:
        scratch = self._buffers(dtype)
        count = len(new) // dtype.width
        words = scratch.words[:count]
        np.copyto(words, np.frombuffer(new, dtype.word))
        if dtype.exponent is not None:
            rotate_in_place(words, 1, scratch.sign[:count])
        return b"".join([bytes([FRESH]), *_planes(words, dtype, level)])

    def decode(self, patch: PatchReader, old: bytes | None, dtype: Dtype, size: int) -> bytes | memoryview:
        """Read a block of ``size`` bytes; the result is good until the next call.

        Raises:
            Refused: ``DeltaInvalid``.
        """
        at = patch.at
        kind = patch.number(1, "block kind")
        if kind == FRESH:
            return self._decode_fresh(patch, dtype, size // dtype.width)
        if kind > PARTLY or old is None:
            refuse(f"byte {at}: expected a block kind that suits its segment, found {kind}")
        if kind == SAME:
            return old
        if kind == STEPPED:
            return quant.decode(patch, old, dtype, size // dtype.width)
        if kind == PARTLY:
            return self._decode_partly(patch, old, dtype)
        return self._decode_moved(patch, old, dtype, size // dtype.width)

    def _decode_partly(self, patch: PatchReader, old: bytes, dtype: Dtype) -> memoryview:
        result = np.frombuffer(old, dtype.word).copy()
        rows = len(result) // ROW
        at = patch.at
        bits = planes.decode(patch, -(-rows // 8))
        if bits is None:
            moved = np.zeros(rows, np.bool_)
        else:
            moved = np.unpackbits(bits, count=rows, bitorder="little").view(np.bool_)
            if rows % 8 and bits[-1] >> rows % 8:
                refuse(f"byte {at}: expected {rows} bits for rows, found more")
        body, tail = result[: rows * ROW].reshape(-1, ROW), result[rows * ROW :]
        picked = body[moved]
        inner = picked.tobytes() + tail.tobytes()
        if inner:
            words = np.frombuffer(
                self._decode_moved(patch, inner, dtype, len(inner) // dtype.width), dtype.word
            )
            body[moved] = words[: picked.size].reshape(-1, ROW)
            tail[:] = words[picked.size :]
        return result.view(np.uint8).data

    def _decode_moved(self, patch: PatchReader, old: bytes, dtype: Dtype, count: int) -> memoryview:
        scratch = self._buffers(dtype)
        was = np.frombuffer(old, dtype.word)
        sign, words, result = scratch.sign[:count], scratch.words[:count], scratch.other[:count]
        edges = self._read_edges(patch) if dtype.exponent is not None else []
        if edges:
            for group in classes(exponents(was, dtype, scratch), edges, scratch):
                part = result[: len(group)]
                _interleave(patch, part, dtype)
                words[group] = part
        else:
            _interleave(patch, words, dtype)
        unzigzag_in_place(words, sign)
        np.copyto(result, was)
        order_in_place(result, dtype, sign)
        np.add(words, result, out=words)
        unorder_in_place(words, dtype, sign)
        return words.view(np.uint8).data

    @staticmethod
    def _read_edges(patch: PatchReader) -> list[int]:
        at = patch.at
        count = patch.number(1, "class count")
        if count >= MOST_CLASSES:
            refuse(f"byte {at}: expected fewer than {MOST_CLASSES} class edges, found {count}")
        edges = list(patch.take(count, "class edges"))
        if any(a >= b for a, b in zip([0, *edges], edges, strict=False)):
            refuse(f"byte {at}: expected class edges that rise from 1, found {edges}")
        return edges

    def _decode_fresh(self, patch: PatchReader, dtype: Dtype, count: int) -> memoryview:
        scratch = self._buffers(dtype)
        words = scratch.words[:count]
        _interleave(patch, words, dtype)
        if dtype.exponent is not None:
            rotate_in_place(words, dtype.width * 8 - 1, scratch.sign[:count])
        return words.view(np.uint8).data


def _planes(words: Words, dtype: Dtype, level: int) -> list[bytes]:
    """Planes from the highest byte down, each in two parts where the bytes above it say enough (``_parts``)."""
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(-1, dtype.width)
    out: list[bytes] = []
    above: Flags | None = None
    for n in reversed(range(dtype.width)):
        plane = np.ascontiguousarray(octets[:, n])
        parts = _parts(above)
        out.extend(planes.encode(plane if part is None else plane[part], level) for part in parts)
        above = _above(above, plane) if n and plane.any() else above
    return out


def _interleave(patch: PatchReader, words: Words, dtype: Dtype) -> None:
    """Read what ``_planes`` made into ``words``."""
    octets = words.view(np.uint8).reshape(-1, dtype.width)
    above: Flags | None = None
    for n in reversed(range(dtype.width)):
        parts = _parts(above)
        plane: Octets | None
        if len(parts) == 1:
            plane = planes.decode(patch, len(words))
        else:
            plane = np.zeros(len(words), np.uint8)
            for part in parts:
                assert part is not None
                values = planes.decode(patch, len(part))
                if values is not None:
                    plane[part] = values
        octets[:, n] = 0 if plane is None else plane
        if n and plane is not None:
            above = _above(above, plane)


def _above(above: Flags | None, plane: Octets) -> Flags:
    """Where this plane or one above it is not 0."""
    filled: Flags = plane != 0
    if above is not None:
        filled |= above
    return filled


def _parts(above: Flags | None) -> list[NDArray[np.intp] | None]:
    """Positions whose higher bytes are all 0, and the rest; one None for all together where either would be tiny.

    A number's low byte tells little when there are higher ones (it is nearly even), and much when it is all there is.
    """
    if above is None:
        return [None]
    filled = int(np.count_nonzero(above))
    if min(filled, len(above) - filled) < max(FEWEST, len(above) // 8):
        return [None]
    return [(~above).nonzero()[0], above.nonzero()[0]]
