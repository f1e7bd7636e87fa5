"""What changed between two versions of a model, tensor by tensor, and what each codec makes of it: for people who ask why.

Promises: memory stays at a few megabytes whatever the size of the model. Leaves to others: printing it (``cli``), and the
decisions it explains (``delta_publish``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemodel.artifact.delta.base import FileBytes
from edgemodel.artifact.delta.numbers import DTYPES, NUMBER_OF, Dtype, order_in_place
from edgemodel.artifact.delta.segments import pair as pair_tensors
from edgemodel.artifact.delta.tensors import TensorSpan, tensors_of
from edgemodel.artifact.delta_publish import LocalFile, Maker, Outcome, Version

_PIECE = 1 << 20
"""Bytes of a tensor that are compared at a time."""
_KINDS: Mapping[str, "np.dtype[Any]"] = {
    "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8"),
    "I8": np.dtype("i1"), "U8": np.dtype("u1"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorChange:
    """How one tensor differs."""

    name: str
    dtype: str
    size: int
    """In bytes."""
    status: Literal["same", "changed", "new", "gone"]
    """``new``: the old file has none of this name, type and size, nor one that could stand for it."""
    old_name: str = ""
    """Where it was matched with a tensor of another name."""
    changed: float = 0.0
    """Share of its elements that changed."""
    largest: float = 0.0
    """Largest absolute difference between finite values."""
    mean: float = 0.0
    """Mean absolute difference over all elements."""
    largest_steps: int = 0
    """The same in steps from one number that the type can hold to the next (ULP; for integers the difference)."""
    mean_steps: float = 0.0


@dataclass(frozen=True, slots=True)
class FileReport:
    """How one file differs and what a delta costs."""

    outcome: Outcome
    tensors: tuple[TensorChange, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """How two versions differ."""

    old: Version
    new: Version
    files: tuple[FileReport, ...]
    """Those that changed."""
    unchanged: tuple[str, ...]
    """Paths of files whose content the old version has too."""


def report(old: Version, new: Version, folder: Path) -> Report:
    """Compare two versions; ``folder`` is for patches, which are of no use afterwards. Blocks."""
    outcomes = Maker(folder, everything=True).make(new, [old])[0]
    changed = {outcome.new.path for outcome in outcomes}
    files = [FileReport(one, _tensors(one.new, one.old, new, old) if one.old else ()) for one in outcomes]
    return Report(old, new, tuple(files), tuple(f.path for f in new.files if f.path not in changed))


def _tensors(new: LocalFile, old: LocalFile, after: Version, before: Version) -> tuple[TensorChange, ...]:
    now = tensors_of(new.file, beside=after.beside())
    was = tensors_of(old.file, beside=before.beside())
    pairs = pair_tensors(was, now)
    matched = {(one.name, one.offset) for _, one in pairs if one is not None}
    gone = [one for one in was if (one.name, one.offset) not in matched]
    with FileBytes(old.file) as base, FileBytes(new.file) as target:
        found = [_change(base, target, one, other) for other, one in pairs]
    return (*found, *(TensorChange(one.name, one.dtype, one.size, "gone") for one in gone))


def _change(base: FileBytes, target: FileBytes, old: TensorSpan | None, new: TensorSpan) -> TensorChange:
    if old is None:
        return TensorChange(new.name, new.dtype, new.size, "new")
    dtype = DTYPES[NUMBER_OF[new.dtype]]
    count = new.size // dtype.width
    changed = largest_steps = 0
    largest = total = total_steps = 0.0
    for at in range(0, new.size, _PIECE):
        length = min(_PIECE, new.size - at)
        was, now = base.read(old.offset + at, length), target.read(new.offset + at, length)
        if was == now:
            continue
        steps = _steps(was, now, dtype)
        apart = np.abs(_values(now, dtype) - _values(was, dtype))
        finite = apart[np.isfinite(apart)]
        changed += int(np.count_nonzero(steps))
        largest_steps = max(largest_steps, int(steps.max(initial=0)))
        total_steps += float(steps.astype(np.float64).sum())
        largest = max(largest, float(finite.max(initial=0)))
        total += float(finite.sum())
    return TensorChange(
        new.name,
        new.dtype,
        new.size,
        "changed" if changed else "same",
        old.name if old.name != new.name else "",
        changed / max(1, count),
        largest,
        total / max(1, count),
        largest_steps,
        total_steps / max(1, count),
    )


def _steps(was: bytes, now: bytes, dtype: Dtype) -> NDArray[Any]:
    one, other = (np.frombuffer(data, dtype.word).copy() for data in (was, now))
    sign = np.empty_like(one)
    order_in_place(one, dtype, sign)
    order_in_place(other, dtype, sign)
    if dtype.name == "I8":
        one, other = (words ^ np.uint8(0x80) for words in (one, other))  # so that -1 lies beside 0
    apart: NDArray[Any] = np.maximum(one, other) - np.minimum(one, other)
    return apart


def _values(data: bytes, dtype: Dtype) -> NDArray[np.float64]:
    if dtype.name == "BF16":
        # The upper half of a single.
        wide = np.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").astype(np.float64)
    return np.frombuffer(data, _KINDS[dtype.name]).astype(np.float64)
