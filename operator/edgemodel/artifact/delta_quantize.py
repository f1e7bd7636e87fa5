"""Rounds the update from an old model to a new one, so that its delta is several times smaller.

Each weight that is a float becomes new' = old + step · q, q a whole number of a few bits, the step shared by a group of
weights (``delta.quant``). What is published, and signed, is the model with the rounded weights: it is another model than
the one that was trained, a little, so whoever publishes it must have looked at what it answers (``delta_accuracy``).

Promises: input files are never changed; the same files give the same rounded ones; tensors that cannot be rounded (no old
one of their name, type and size; integers; not finite) stay as they are.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgemodel.artifact.delta import quant
from edgemodel.artifact.delta.numbers import DTYPES, NUMBER_OF, Dtype, Octets
from edgemodel.artifact.delta.quant import GROUP, Moves, Steps, TensorSteps
from edgemodel.artifact.delta.tensors import TensorSpan, tensors_of
from edgemodel.artifact.delta_publish import LocalFile, Version, pair

BITS = (8, 6, 4)
"""Bits of q on offer. Fewer cost accuracy that shows."""
_PIECE = GROUP * 2048
"""Weights that are handled at a time."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """What was rounded of one file."""

    path: str
    file: Path
    steps: tuple[TensorSteps, ...]
    tensors: int
    """How many tensors were rounded."""
    weights: int
    """How many weights they have."""
    largest: float
    """The largest difference between a trained weight and the rounded one."""
    largest_update: float
    """The largest difference between an old weight and the trained one."""


def round_update(old: Version, new: Version, bits: int, folder: Path) -> list[Rounded]:
    """Write rounded copies of changed files into ``folder``; return what was done to those with something to round.

    Args:
        old: what nodes have.
        new: what was trained.
        bits: of each q, one of ``BITS``.
        folder: empty.
    """
    done = []
    for number, (after, before) in enumerate(pair(new.files, old.files)):
        if before is None:
            continue
        target = folder / str(number) / after.path
        rounded = _round_file(after, before, old.beside(), new.beside(), bits, target)
        if rounded is not None:
            done.append(rounded)
    return done


def matched(old: Sequence[TensorSpan], new: Sequence[TensorSpan]) -> list[tuple[TensorSpan, TensorSpan]]:
    """Return pairs of tensors of one name, type and size."""
    known = {(span.name, span.dtype, span.size): span for span in old}
    return [(known[key], span) for span in new if (key := (span.name, span.dtype, span.size)) in known]


def _round_file(
    new: LocalFile,
    old: LocalFile,
    old_beside: Mapping[str, Path],
    new_beside: Mapping[str, Path],
    bits: int,
    target: Path,
) -> Rounded | None:
    pairs = [
        (before, after)
        for before, after in matched(
            tensors_of(old.file, beside=old_beside), tensors_of(new.file, beside=new_beside)
        )
        if after.dtype in quant.FLOATS
    ]
    if not pairs:
        return None
    target.parent.mkdir(parents=True)
    shutil.copyfile(new.file, target)
    steps: list[TensorSteps] = []
    weights = 0
    largest = update = 0.0
    was = np.memmap(old.file, np.uint8, "r")
    now = np.memmap(target, np.uint8, "r+")
    for before, after in pairs:
        dtype = DTYPES[NUMBER_OF[after.dtype]]
        one = was[before.offset : before.offset + before.size]
        other = now[after.offset : after.offset + after.size]
        found = _round_tensor(one, other, dtype, bits)
        if found is not None:
            steps.append(TensorSteps(after.offset, found[0]))
            weights += after.size // dtype.width
            largest, update = max(largest, found[1]), max(update, found[2])
    now.flush()
    del was, now
    if not steps:
        return None
    return Rounded(new.path, target, tuple(steps), len(steps), weights, largest, update)


def _round_tensor(old: Octets, new: Octets, dtype: Dtype, bits: int) -> tuple[Steps, float, float] | None:
    """Round ``new`` in place; return the steps, the largest error and the largest update. None: nothing was changed."""
    kind = quant.FLOATS[dtype.name]
    size = _PIECE * dtype.width
    pieces = [(old[at : at + size], new[at : at + size]) for at in range(0, len(new), size)]
    if not all(_finite(part, kind) for piece in pieces for part in piece):
        return None
    all_steps = []
    largest = update = 0.0
    for was, now in pieces:
        before, trained = was.tobytes(), now.tobytes()
        steps = _steps(before, trained, dtype, bits)
        rounded = quant.restore(before, steps, _moves(before, trained, steps, dtype, bits), dtype)
        if before == trained or not _finite(np.frombuffer(rounded, np.uint8), kind):
            # Nothing to round, or a weight at the edge of what the type holds: the piece stays as it was trained.
            all_steps.append(np.zeros_like(steps))
            continue
        start, goal, end = (
            np.frombuffer(data, kind).astype(np.float64) for data in (before, trained, rounded)
        )
        largest = max(largest, float(np.abs(goal - end).max(initial=0)))
        update = max(update, float(np.abs(goal - start).max(initial=0)))
        now[:] = np.frombuffer(rounded, np.uint8)
        all_steps.append(steps)
    steps = np.concatenate(all_steps)
    return (steps, largest, update) if steps.any() else None


def _finite(octets: Octets, kind: "np.dtype[np.float32]") -> bool:
    return bool(np.isfinite(np.frombuffer(octets.tobytes(), kind)).all())


def _steps(old: bytes, new: bytes, dtype: Dtype, bits: int) -> Steps:
    kind = quant.FLOATS[dtype.name]
    moved = np.abs(np.frombuffer(new, kind).astype(np.float32) - np.frombuffer(old, kind).astype(np.float32))
    groups = np.maximum.reduceat(moved, np.arange(0, len(moved), GROUP))
    return (groups / np.float32(2 ** (bits - 1) - 1)).astype(np.float32)


def _moves(old: bytes, new: bytes, steps: Steps, dtype: Dtype, bits: int) -> Moves:
    limit = 2 ** (bits - 1) - 1
    return np.clip(quant.moves_between(old, new, steps, dtype), -limit, limit)
