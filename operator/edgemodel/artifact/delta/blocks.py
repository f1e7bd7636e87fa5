"""One block of numbers as bytes of a patch, and back: the codecs ``ulp`` (with the old numbers) and ``planes`` (without).

Promises: ``decode`` gives exactly the numbers ``encode`` was given, for every bit pattern, if the base is the same;
it reads no more of a patch than the block has and fills no more than the block's size. Format:
docs/reference/delta-format.md.
"""

from dataclasses import dataclass, field

import numpy as np

from edgemodel.artifact.delta import planes, quant
from edgemodel.artifact.delta.layout import PatchReader
from edgemodel.artifact.delta.numbers import (
    Dtype,
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

BLOCK = 1 << 18
"""Bytes of numbers in one block: with its buffers it stays in a core's cache. Part of the format."""
SAME, MOVED, FRESH, STEPPED = 0, 1, 2, 3
"""Kinds of block: as in the base; differences from the base; no base used; even steps from the base (``quant``)."""
MOST_CLASSES = 16


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
        moved = self._encode_moved(old, new, dtype, level)
        if len(moved) * 5 > len(new) * 4:
            return min(moved, self._encode_fresh(new, dtype, level), key=len)
        return moved

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
        if groups is not None:
            words = np.concatenate([words[group] for group in groups])
        out.extend(_planes(words, dtype, level))
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
        if kind > STEPPED or old is None:
            refuse(f"byte {at}: expected a block kind that suits its segment, found {kind}")
        if kind == SAME:
            return old
        if kind == STEPPED:
            return quant.decode(patch, old, dtype, size // dtype.width)
        return self._decode_moved(patch, old, dtype, size // dtype.width)

    def _decode_moved(self, patch: PatchReader, old: bytes, dtype: Dtype, count: int) -> memoryview:
        scratch = self._buffers(dtype)
        was = np.frombuffer(old, dtype.word)
        sign, words, result = scratch.sign[:count], scratch.words[:count], scratch.other[:count]
        edges = self._read_edges(patch) if dtype.exponent is not None else []
        _interleave(patch, words, dtype)
        unzigzag_in_place(words, sign)
        if edges:
            start = 0
            for group in classes(exponents(was, dtype, scratch), edges, scratch):
                result[group] = words[start : start + len(group)]
                start += len(group)
            words, result = result, words
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
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(-1, dtype.width)
    return [planes.encode(np.ascontiguousarray(octets[:, n]), level) for n in range(dtype.width)]


def _interleave(patch: PatchReader, words: Words, dtype: Dtype) -> None:
    octets = words.view(np.uint8).reshape(-1, dtype.width)
    for n in range(dtype.width):
        plane = planes.decode(patch, len(words))
        octets[:, n] = 0 if plane is None else plane
