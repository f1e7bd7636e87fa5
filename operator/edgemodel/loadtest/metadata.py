"""What a server says of a model (``GET /v2/models/NAME``, by gRPC ``ModelMetadata``), read with suspicion. Pure.

Source: the Open Inference Protocol v2, "Model Metadata Response JSON Object".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgemodel.errors import Stalled

MOST_ELEMENTS = 1 << 28
"""Of one tensor: a gigabyte of FP32."""
DATATYPES = frozenset(
    f"{kind}{bits}"
    for kind, sizes in {"UINT": (8, 16, 32, 64), "INT": (8, 16, 32, 64), "FP": (16, 32, 64)}.items()
    for bits in sizes
) | {"BOOL", "BF16", "BYTES"}


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a model: a size of -1 is any."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """A model's name, versions and inputs."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[Input, ...]


def parse(body: bytes) -> Metadata:
    """Read a model metadata response in JSON.

    Raises:
        Stalled: ``InvalidSpec``; it is none.
    """
    try:
        return read(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise unreadable(error, body) from None


def read(document: Any) -> Metadata:
    """Return what a model metadata response says.

    Args:
        document: the response as JSON values.

    Raises:
        ValueError: it is none.
        Stalled: ``InvalidSpec``; two inputs have one name.
    """
    try:
        inputs = tuple(_input(number, one) for number, one in enumerate(document["inputs"]))
        versions = tuple(map(str, document.get("versions") or ()))
        name = str(document["name"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(repr(error)) from None
    if len({one.name for one in inputs}) != len(inputs):
        raise Stalled("InvalidSpec", "metadata: two inputs have one name")
    return Metadata(name, versions, inputs)


def unreadable(error: Exception, body: bytes) -> Stalled:
    """Return what to say of a response that is no model's metadata."""
    shown = body[:120].decode(errors="replace")
    return Stalled("InvalidSpec", f"expected a model's metadata with its inputs ({error!r}), found {shown!r}")


def _input(number: int, found: Any) -> Input:
    name, datatype, shape = found["name"], found["datatype"], found["shape"]
    if not isinstance(name, str) or datatype not in DATATYPES:
        raise ValueError(f"inputs[{number}]: name {name!r}, datatype {datatype!r}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= -1 for size in shape):
        raise ValueError(f"inputs[{number}].shape: {shape!r}")
    return Input(name, datatype, tuple(shape))


def sized(inputs: Sequence[Input], wanted: Mapping[str, tuple[int, ...]]) -> list[Input]:
    """Return the inputs with a size for each dimension.

    Args:
        inputs: as the server names them.
        wanted: shapes by name; for the others a first dimension of any size is 1.

    Raises:
        Stalled: ``InvalidSpec``; a size is missing, or does not fit.
    """
    unknown = sorted(set(wanted) - {one.name for one in inputs})
    if unknown:
        names = ", ".join(one.name for one in inputs)
        raise Stalled("InvalidSpec", f"--shape: the model has no input {unknown[0]!r}; it has {names}")
    return [replace(one, shape=_shape(one, wanted.get(one.name))) for one in inputs]


def _shape(one: Input, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    if wanted is None:
        shape = (1, *one.shape[1:]) if one.shape[:1] == (-1,) else one.shape
        if -1 in shape:
            example = ",".join(str(size) if size >= 0 else "16" for size in shape)
            raise Stalled(
                "InvalidSpec",
                f"input {one.name!r} takes any size where its shape {_text(one.shape)} says -1: say which, "
                f"for instance --shape {one.name}:{example}",
            )
    else:
        shape = wanted
        fits = len(shape) == len(one.shape) and all(
            size in (-1, given) for size, given in zip(one.shape, shape, strict=True)
        )
        if not fits:
            raise Stalled(
                "InvalidSpec",
                f"--shape {one.name}: expected a shape like {_text(one.shape)}, found {_text(shape)}",
            )
    count = 1
    for size in shape:
        count *= size
    if count > MOST_ELEMENTS:
        raise Stalled(
            "InvalidSpec", f"input {one.name!r}: expected at most {MOST_ELEMENTS} elements, found {count}"
        )
    return shape


def _text(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
