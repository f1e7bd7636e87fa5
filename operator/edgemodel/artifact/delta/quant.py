"""Blocks of weights that were moved in few, even steps: new = old + step · q, with q a whole number of 2 to 8 bits.

A publisher who agrees to have the *update* of a model rounded (``edgemodel publish --delta-quantize``) gets patches
that are several times smaller, as q and one step for each group of weights say all.

Promises: ``restore`` gives the same bits on every machine: the product and the sum are two IEEE 754 operations in
single precision, each rounded to nearest even, never fused; ``encode`` returns None for blocks that did not come about
so, and what it does return gives ``new`` bit by bit.
Format: docs/reference/delta-format.md.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemodel.artifact.delta import compression, planes
from edgemodel.artifact.delta.layout import PatchReader
from edgemodel.artifact.delta.numbers import Dtype
from edgemodel.artifact.delta.refusal import refuse

GROUP = 512
"""Weights that share a step: as many as a row of a small model has, so that its size in the patch does not count."""
MOST_BITS = 8
FLOATS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
"""Kinds of number that can be moved so, by dtype."""
_EXCEPTION = struct.Struct("<I")
Steps = NDArray[np.float32]
Moves = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class TensorSteps:
    """How the weights of one tensor were moved.

    Attributes:
        offset: where the tensor starts in the new file, in bytes.
        steps: one for each ``GROUP`` of its weights, in order.
    """

    offset: int
    steps: Steps


def restore(old: bytes | memoryview, steps: Steps, moves: Moves, dtype: Dtype) -> bytes:
    """Return old + step · move for each weight; ``steps`` has one for each whole or begun ``GROUP``."""
    kind = FLOATS[dtype.name]
    was = np.frombuffer(old, kind).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        product = np.multiply(np.repeat(steps, GROUP)[: len(was)], moves.astype(np.float32), dtype=np.float32)
        return np.add(was, product, dtype=np.float32).astype(kind).tobytes()


def moves_between(old: bytes | memoryview, new: bytes | memoryview, steps: Steps, dtype: Dtype) -> Moves:
    """Return the moves that bring ``old`` nearest to ``new``."""
    kind = FLOATS[dtype.name]
    was, now = (np.frombuffer(data, kind).astype(np.float64) for data in (old, new))
    divisors = np.repeat(np.where(steps > 0, steps, np.float32(1)).astype(np.float64), GROUP)[: len(was)]
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.rint((now - was) / divisors)
    moved[np.repeat(steps <= 0, GROUP)[: len(was)]] = 0
    moves: Moves = np.clip(np.nan_to_num(moved), -128, 127).astype(np.int8)
    return moves


def encode(old: bytes, new: bytes, steps: Steps, dtype: Dtype, level: int) -> bytes | None:
    """Return the block of ``new``, or None when it did not come from ``old`` by these steps.

    A few weights may differ (where two moves round to one number, or a zero's sign): they are listed as they are.
    """
    moves = moves_between(old, new, steps, dtype)
    want, got = np.frombuffer(new, dtype.word), np.frombuffer(restore(old, steps, moves, dtype), dtype.word)
    wrong = np.flatnonzero(want != got)
    if len(wrong) * 16 > len(want):
        return None
    zigzag = (moves.view(np.uint8) << np.uint8(1)) ^ (moves >> np.int8(7)).view(np.uint8)
    packed = compression.pack(steps.astype("<f4").tobytes(), max(level, 3))
    return b"".join(
        [
            _EXCEPTION.pack(len(packed)),
            packed,
            planes.encode(zigzag, level),
            _EXCEPTION.pack(len(wrong)),
            wrong.astype("<u4").tobytes(),
            want[wrong].tobytes(),
        ]
    )


def decode(patch: PatchReader, old: bytes, dtype: Dtype, count: int) -> bytes:
    """Read a block of ``count`` weights.

    Raises:
        Refused: ``DeltaInvalid``.
    """
    at = patch.at
    if dtype.name not in FLOATS:
        refuse(f"byte {at}: expected steps for {', '.join(FLOATS)}, found them for {dtype.name}")
    groups = -(-count // GROUP)
    length = patch.number(4, "length of steps")
    if length > groups * 4 + 64:
        refuse(f"byte {at}: expected steps of at most {groups * 4 + 64} bytes, found {length}")
    steps = np.frombuffer(compression.unpack(patch.take(length, "steps"), groups * 4, patch.at), "<f4")
    zigzag = planes.decode(patch, count)
    if zigzag is None:
        zigzag = np.zeros(count, np.uint8)
    moves = ((zigzag >> 1) ^ (0 - (zigzag & 1))).view(np.int8)
    words = np.frombuffer(restore(old, steps, moves, dtype), dtype.word)
    at = patch.at
    exceptions = patch.number(4, "count of exceptions")
    if exceptions == 0:
        return words.tobytes()
    if exceptions > count:
        refuse(f"byte {at}: expected at most {count} exceptions, found {exceptions}")
    where = np.frombuffer(patch.take(exceptions * 4, "places of exceptions"), "<u4")
    if int(where.max()) >= count:
        refuse(f"byte {at}: expected places below {count}, found {int(where.max())}")
    whole = words.copy()
    whole[where] = np.frombuffer(patch.take(exceptions * dtype.width, "exceptions"), dtype.word)
    return whole.tobytes()
