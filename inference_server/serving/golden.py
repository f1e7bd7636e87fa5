"""Runs a model's golden samples before the server says ready, and says what it answered otherwise.

Each sample goes through the data plane as a client's request does, so that what is compared is what clients would get.
Promises: at most ``seconds`` in all and one sample's arrays in memory at a time; a failed sample is a result and never an
error: whether it keeps a version from traffic is decided by whoever reads the result. Leaves to others: reading the
archive (`files.golden_samples`), the result's JSON (`oip.json`).
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inference_server.errors import InvalidRequest, ModelFileNotFound, RequestError, SamplesUnreadable
from inference_server.files.golden_samples import FILE, Archive, Tolerance, Tolerances
from inference_server.files.model_directory import ModelFiles, inside
from inference_server.messages import (
    ABSENT,
    GoldenFailure,
    GoldenResult,
    InferenceRequest,
    ModelMetadata,
)
from inference_server.serving.dataplane import DataPlane
from inference_server.serving.model_slot import ServedModel
from inference_server.tensors import (
    DATATYPES,
    NUMPY_TYPES,
    Array,
    TensorSpec,
    bf16_exactly,
    check_shape,
    numbers,
)

logger = logging.getLogger(__name__)

MAX_FAILURES = 8
"""Most failures that are told; the numbers count all of them."""
_SHOWN = 80
_MESSAGE = 600
"""Names in a model have any length; whoever asks need not read more than this of each failure."""


def find(files: ModelFiles) -> Path | None:
    """Return where a model's samples are; None when it has none.

    Raises:
        SamplesUnreadable: Something is there that is no file of the model directory.
    """
    try:
        path = inside(files.root, FILE, "golden samples", ModelFileNotFound)
    except ModelFileNotFound as error:
        raise SamplesUnreadable(str(error)) from None
    if path.is_file():
        return path
    if path.exists():
        raise SamplesUnreadable(f"{FILE}: expected a file")
    return None


async def judge(plane: DataPlane, model: ServedModel, files: ModelFiles, seconds: float) -> GoldenResult:
    """Run the samples that lie beside a model; `ABSENT` when there are none.

    Args:
        plane: Where the model will be served.
        model: Loaded and warmed up.
        files: Where it came from.
        seconds: For all samples; a model that takes longer fails.
    """
    try:
        path = await asyncio.to_thread(find, files)
    except SamplesUnreadable as error:
        return unreadable(error)
    if path is None:
        return ABSENT
    try:
        return await run(plane, model, path, seconds)
    except Exception:
        # A bug of ours must not keep a model from serving, nor let one pass that nobody has looked at.
        logger.exception("golden samples failed unexpectedly")
        return unreadable(SamplesUnreadable("internal error; the server's log has the details"))


async def run(plane: DataPlane, model: ServedModel, path: Path, seconds: float) -> GoldenResult:
    """Run the samples of one archive."""
    try:
        archive = await asyncio.to_thread(Archive, path)
    except SamplesUnreadable as error:
        return unreadable(error)
    total, passed = len(archive.names), 0
    logger.info("running golden samples", extra={"fields": {"samples": total, "timeout_seconds": seconds}})
    failures: list[GoldenFailure] = []
    deadline = asyncio.get_running_loop().time() + seconds
    for number, name in enumerate(archive.names):
        try:
            async with asyncio.timeout_at(deadline):
                found = await _sample(plane, model, archive, name)
        except TimeoutError:
            message = (
                f"the samples took longer than the {seconds:g} s they may take together; {number} of {total} were "
                "answered"
            )
            failures.append(_failure(name, "", message))
            break
        passed += not found
        failures += found
    return GoldenResult("Pass" if passed == total else "Fail", total, passed, tuple(failures[:MAX_FAILURES]))


def unreadable(error: SamplesUnreadable) -> GoldenResult:
    """Return the result of samples that cannot be read: nobody can say that the model is right."""
    return GoldenResult("Fail", 0, 0, (_failure("", "", f"the golden samples are unusable: {error}"),))


async def _sample(plane: DataPlane, model: ServedModel, archive: Archive, name: str) -> list[GoldenFailure]:
    try:
        inputs, expected = await asyncio.to_thread(archive.sample, name)
        request = _request(model.metadata, inputs, expected)
        answers = await plane.answer(model, request)
    except (RequestError, SamplesUnreadable) as error:
        return [_failure(name, "", f"sample {name!r}: {error}")]
    found = dict(zip(request.outputs, answers, strict=True))
    datatypes = {spec.name: spec.datatype for spec in model.metadata.outputs}
    return await asyncio.to_thread(differences, name, expected, found, archive.tolerances, datatypes)


def _request(
    metadata: ModelMetadata, inputs: Mapping[str, Array], expected: Mapping[str, Array]
) -> InferenceRequest:
    """Return the request that a client would have sent.

    Raises:
        InvalidRequest: The sample is not one of this model.
    """
    fed = {}
    for spec in metadata.inputs:
        if spec.name not in inputs:
            raise InvalidRequest(f"expected an input {spec.name!r}, found {_listed(inputs)}")
        fed[spec.name] = _checked(inputs[spec.name], spec)
    if other := inputs.keys() - fed.keys():
        raise InvalidRequest(f"inputs: the model has no {_listed(dict.fromkeys(other))}")
    known = {spec.name for spec in metadata.outputs}
    if not expected or not expected.keys() <= known:
        raise InvalidRequest(
            f"outputs: expected some of {_listed(dict.fromkeys(known))}, found {_listed(expected)}"
        )
    return InferenceRequest(fed, tuple(expected))


def _checked(array: Array, spec: TensorSpec) -> Array:
    if spec.datatype == "BF16":
        array = bf16_exactly(array, f"input {spec.name!r}")
    if array.dtype != NUMPY_TYPES[spec.datatype]:
        raise InvalidRequest(f"input {spec.name!r}: expected {spec.datatype}, found {_datatype(array)}")
    check_shape(list(array.shape), spec, f"input {spec.name!r}")
    return array


def differences(
    sample: str,
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    tolerances: Tolerances,
    datatypes: Mapping[str, str],
) -> list[GoldenFailure]:
    """Return what is wrong with the answers to one sample, at most one failure an output."""
    failures = []
    for output, wanted in expected.items():
        datatype = datatypes[output]
        answer, tolerance = numbers(found[output], datatype), tolerances.of(output, datatype)
        if (message := difference(wanted, answer, tolerance)) is not None:
            failures.append(
                _failure(sample, output, f"sample {sample!r}, output {output[:_SHOWN]!r}: {message}")
            )
    return failures


def difference(expected: Array, found: Array, tolerance: Tolerance) -> str | None:
    """Say how an answer differs from what is expected; None when it does not.

    A NaN differs from everything, another NaN included: nobody can compare with it.
    """
    found = _plain(found)
    if expected.dtype != found.dtype:
        return f"expected {_datatype(expected)}, found {_datatype(found)}"
    if expected.shape != found.shape:
        return f"expected shape {list(expected.shape)}, found {list(found.shape)}"
    wrong = ~_close(expected, found, tolerance)
    count = int(np.count_nonzero(wrong))
    if not count:
        return None
    worst = int(np.argmax(_distance(expected, found, tolerance) * wrong + wrong))
    index = tuple(int(axis) for axis in np.unravel_index(worst, wrong.shape))
    one, other = expected[index], found[index]
    message = f"index {list(index)}: expected {_shown(one)}, found {_shown(other)}"
    if expected.dtype.kind in "iuf":
        allowed = tolerance.absolute + tolerance.relative * abs(float(one))
        message += f", at most {allowed:.3g} apart"
    return f"{message}; {count} of {expected.size} values differ"


def _distance(expected: Array, found: Array, tolerance: Tolerance) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return how far each value is from what is allowed, as a number that is never NaN; 0 where there is none."""
    if expected.dtype.kind not in "iuf":
        return np.zeros(expected.shape)
    with np.errstate(all="ignore"):
        one, other = expected.astype(np.float64), found.astype(np.float64)
        beyond = np.abs(other - one) - tolerance.absolute - tolerance.relative * np.abs(one)
    most = np.finfo(np.float64).max / 2
    return np.clip(np.nan_to_num(beyond, nan=most, posinf=most), 0, most)


def _close(
    expected: Array, found: Array, tolerance: Tolerance
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    equal = np.asarray(expected == found, np.bool_)
    if expected.dtype.kind not in "iuf" or (tolerance.absolute, tolerance.relative) == (0, 0):
        return equal
    with np.errstate(all="ignore"):
        one, other = expected.astype(np.float64), found.astype(np.float64)
        near = np.abs(other - one) <= tolerance.absolute + tolerance.relative * np.abs(one)
        # A share of infinity is infinite, and all numbers would be near.
        return np.asarray(equal | (near & np.isfinite(one) & np.isfinite(other)), np.bool_)


def _plain(array: Array) -> Array:
    """Return text as it would be sent: str, without the zero bytes that an .npz cannot keep at the end."""
    if array.dtype.kind not in "OSU":
        return array
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in array.ravel()]
    plain = np.empty(len(texts), object)
    plain[:] = [text.rstrip("\0") for text in texts]
    return plain.reshape(array.shape)


def _failure(sample: str, output: str, message: str) -> GoldenFailure:
    return GoldenFailure(sample, output[:_MESSAGE], message[:_MESSAGE])


def _datatype(array: Array) -> str:
    return DATATYPES.get(array.dtype, str(array.dtype))


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, np.generic) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _listed(names: Mapping[str, object]) -> str:
    shown = ", ".join(repr(name[:_SHOWN]) for name in sorted(names)[:MAX_FAILURES])
    return shown + (", …" if len(names) > MAX_FAILURES else "") if names else "none"
