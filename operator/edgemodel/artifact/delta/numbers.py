"""Arithmetic on weights as unsigned integers: how far a number moved, counted in steps between neighbouring floats.

Promises: every function is exact and has an exact inverse for all bit patterns, infinities and NaNs too; arrays are
changed in place where the name says so, in buffers that are made once (``Scratch``), because making them costs more
than the arithmetic.

Source: FM-Delta (NeurIPS 2024) for ordered integers; grouping by the old exponent is explained in docs/adr/0012.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[Any]
Octets = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Dtype:
    """How one kind of number is stored.

    Attributes:
        name: as safetensors spells it.
        width: bytes of one number.
        exponent: lowest bit of the exponent, or None for integers.
        exponents: how many values the exponent has.
    """

    name: str
    width: int
    exponent: int | None = None
    exponents: int = 0

    @property
    def word(self) -> np.dtype[Any]:
        """Little-endian unsigned integer of the same width."""
        return np.dtype(f"<u{self.width}")


DTYPES = {
    1: Dtype("F32", 4, 23, 256),
    2: Dtype("F16", 2, 10, 32),
    3: Dtype("BF16", 2, 7, 256),
    4: Dtype("I8", 1),
    5: Dtype("U8", 1),
    6: Dtype("F64", 8, 52, 2048),
}
"""By the number a patch writes; never renumbered."""
WIDTHS = {number: dtype.width for number, dtype in DTYPES.items()}
NUMBER_OF = {dtype.name: number for number, dtype in DTYPES.items()}


class Scratch:
    """Buffers for blocks of one dtype, up to ``count`` numbers each."""

    def __init__(self, dtype: Dtype, count: int) -> None:
        self.dtype = dtype
        self.words = np.empty(count, dtype.word)
        self.other = np.empty(count, dtype.word)
        self.sign = np.empty(count, dtype.word)
        self.key = np.empty(count, np.uint8)
        self.low = np.empty(count, np.bool_)
        self.high = np.empty(count, np.bool_)
        self.mask = np.empty(count, np.bool_)


def _signed(words: Words) -> Words:
    return words.view(words.dtype.str.replace("u", "i"))


def order_in_place(words: Words, dtype: Dtype, sign: Words) -> None:
    """Turn float bits into integers whose order is that of the floats; integers stay."""
    if dtype.exponent is None:
        return
    bits = words.dtype.itemsize * 8
    np.right_shift(_signed(words), bits - 1, out=_signed(sign))
    np.bitwise_or(sign, words.dtype.type(1 << (bits - 1)), out=sign)
    np.bitwise_xor(words, sign, out=words)


def unorder_in_place(words: Words, dtype: Dtype, sign: Words) -> None:
    """Undo ``order_in_place``."""
    if dtype.exponent is None:
        return
    bits = words.dtype.itemsize * 8
    np.right_shift(_signed(words), bits - 1, out=_signed(sign))
    np.invert(sign, out=sign)
    np.bitwise_or(sign, words.dtype.type(1 << (bits - 1)), out=sign)
    np.bitwise_xor(words, sign, out=words)


def zigzag_in_place(words: Words, sign: Words) -> None:
    """Turn small differences of either sign into small unsigned numbers: 0, -1, 1, -2, … to 0, 1, 2, 3, …."""
    np.right_shift(_signed(words), words.dtype.itemsize * 8 - 1, out=_signed(sign))
    np.left_shift(words, 1, out=words)
    np.bitwise_xor(words, sign, out=words)


def unzigzag_in_place(words: Words, sign: Words) -> None:
    """Undo ``zigzag_in_place``."""
    np.bitwise_and(words, 1, out=sign)
    np.negative(sign, out=sign)
    np.right_shift(words, 1, out=words)
    np.bitwise_xor(words, sign, out=words)


def rotate_in_place(words: Words, left: int, sign: Words) -> None:
    """Rotate the bits of every word left."""
    bits = words.dtype.itemsize * 8
    np.right_shift(words, bits - left, out=sign)
    np.left_shift(words, left, out=words)
    np.bitwise_or(words, sign, out=words)


def exponents(words: Words, dtype: Dtype, scratch: Scratch) -> Octets:
    """Return the low 8 bits of every float's exponent, in a buffer of ``scratch``."""
    assert dtype.exponent is not None
    count = len(words)
    shifted = scratch.sign[:count]
    np.right_shift(words, dtype.exponent, out=shifted)
    np.bitwise_and(shifted, min(dtype.exponents - 1, 255), out=shifted)
    key = scratch.key[:count]
    np.copyto(key, shifted, casting="unsafe")
    return key


def classes(key: Octets, edges: list[int], scratch: Scratch) -> list[NDArray[np.intp]]:
    """Return, for each class of keys, the positions of its members in ascending order.

    Class 0 holds keys below ``edges[0]``, class n those from ``edges[n - 1]`` up to below ``edges[n]``, the last one
    the rest. A position is in exactly one class. (A radix sort by all keys costs three times as much for the same
    compression.)
    """
    count = len(key)
    low, high, mask = scratch.low[:count], scratch.high[:count], scratch.mask[:count]
    found = []
    low.fill(True)
    for edge in edges:
        np.greater_equal(key, edge, out=high)
        np.not_equal(low, high, out=mask)
        found.append(mask.nonzero()[0])
        low, high = high, low
    found.append(low.nonzero()[0])
    return found


FAIR = 2048
"""Fewer numbers are no class of their own: the tables of its codes would cost more than they save."""


def choose_edges(key: Octets, most: int) -> list[int]:
    """Return the edges of up to ``most`` classes that an encoder should make of these keys.

    Each exponent that has its fair share of the numbers is a class; the rare ones at the small end share one.
    """
    counts = np.bincount(key, minlength=256)
    share = max(FAIR, len(key) // 64)
    edges: list[int] = []
    gathered = 0
    for value in range(255, 0, -1):
        gathered += int(counts[value])
        if gathered >= share and int(counts[:value].sum()) >= share:
            edges.append(value)
            gathered = 0
        if len(edges) == most - 1:
            break
    return edges[::-1]
