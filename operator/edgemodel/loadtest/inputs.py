"""Makes values for a model's inputs: zeros, or random ones that are the same in every run.

Random numbers are floats from 0 to 1; whole numbers are 0 or 1, which is a token, a mask and a class for every model that
takes such (a token beyond the vocabulary fails within the model); strings have eight letters. What a model does with its
values is better shown by real ones from a file.
"""

import random
from collections.abc import Sequence
from math import prod

from edgemodel.loadtest.body import Tensor, Value
from edgemodel.loadtest.metadata import Input

_FLOATS = ("FP16", "FP32", "FP64", "BF16")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def zeros(inputs: Sequence[Input]) -> list[Tensor]:
    """Return tensors of zeros, false and empty strings."""
    nothing: dict[str, Value] = {"BOOL": False, "BYTES": "", **dict.fromkeys(_FLOATS, 0.0)}
    return [
        Tensor(one.name, one.datatype, one.shape, [nothing.get(one.datatype, 0)] * prod(one.shape))
        for one in inputs
    ]


def drawn(inputs: Sequence[Input], seed: int) -> list[Tensor]:
    """Return tensors of random values."""
    source = random.Random(seed)  # noqa: S311 - nothing secret
    return [
        Tensor(one.name, one.datatype, one.shape, _values(one.datatype, prod(one.shape), source))
        for one in inputs
    ]


def _values(datatype: str, count: int, source: random.Random) -> list[Value]:
    if datatype in _FLOATS:
        # Four digits: what sensors give, and what JSON can carry without ten more.
        return [number / 10_000 for number in source.choices(range(10_001), k=count)]
    if datatype == "BOOL":
        return list(source.choices((False, True), k=count))
    if datatype == "BYTES":
        return ["".join(source.choices(_LETTERS, k=8)) for _ in range(count)]
    return list(source.choices((0, 1), k=count))
