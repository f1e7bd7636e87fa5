"""The golden samples of a model on disk: what it is to answer to given inputs, and how exactly.

Format (docs/reference/artifact-format.md, "Samples"): a tar archive with ``<name>.inputs.npz`` and ``<name>.outputs.npz``
for each sample and at most one ``tolerances.json``. Promises: whatever the bytes, nothing is unpickled, no more than
``MAX_BYTES`` are taken, packed or unpacked, and the only error is ``SamplesUnreadable``, which names the entry. Leaves to
others: running the model (`golden`).
"""

import io
import math
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.lib import format as npy

from inference_server.errors import SamplesUnreadable
from inference_server.tensors import MAX_RANK, Array

FILE = ".golden/samples.tar"
"""Where the archive lies in a model directory."""
MAX_BYTES = 16 * 1024 * 1024
MAX_SAMPLES = 64
MAX_ARRAYS = 256
"""Of one sample, inputs or outputs."""
INPUTS, OUTPUTS, TOLERANCES = ".inputs.npz", ".outputs.npz", "tolerances.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TOLERANCES_BYTES = 64 * 1024
_HEADER_BYTES = 10_000
_PLAIN = "biufUS"
"""Kinds of numpy types that are no Python objects: truth, numbers, text."""
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, TypeError,
    KeyError, OverflowError, NotImplementedError, RuntimeError, MemoryError, SyntaxError,
)  # fmt: skip
"""What the standard library and numpy raise on damaged archives; ``RuntimeError``: an encrypted entry."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an answer may be from the expected value: ``absolute + relative · |expected|``."""

    absolute: float
    relative: float


_EXACT = Tolerance(0.0, 0.0)
_BY_TYPE = {
    "FP16": Tolerance(1e-2, 1e-2),
    "FP32": Tolerance(1e-4, 1e-3),
    "FP64": Tolerance(1e-4, 1e-3),
    "BF16": Tolerance(2e-2, 2e-2),
}
"""What one model differs by between processors and releases of ONNX Runtime, with room to spare."""


@dataclass(frozen=True, slots=True)
class Tolerances:
    """What `tolerances.json` says; a member that it leaves out is that of the default, then of the datatype."""

    default: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def of(self, output: str, datatype: str) -> Tolerance:
        """Return the tolerance of one output."""
        known = _BY_TYPE.get(datatype, _EXACT)
        said = {**self.default, **self.outputs.get(output, {})}
        return Tolerance(said.get("absolute", known.absolute), said.get("relative", known.relative))


class Archive:
    """An opened archive; arrays are read sample by sample.

    Args:
        path: The file.

    Raises:
        SamplesUnreadable: It is none, too large, or holds what no sample is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unpacked = 0
        try:
            if (size := path.stat().st_size) > MAX_BYTES:
                raise SamplesUnreadable(f"the archive has {size} bytes; at most {MAX_BYTES} are read")
            self._entries = _entries(path)
            said = self._read(TOLERANCES) if TOLERANCES in self._entries else b"{}"
        except _DAMAGED as error:
            raise SamplesUnreadable(
                f"the archive cannot be read: {str(error)[:200] or type(error).__name__}"
            ) from None
        self.tolerances = _tolerances(said)
        self.names = sorted(name.removesuffix(INPUTS) for name in self._entries if name.endswith(INPUTS))
        if not self.names:
            raise SamplesUnreadable(f"expected at least one <name>{INPUTS}, found none")

    def sample(self, name: str) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return inputs and expected outputs of one sample; text as object arrays of str.

        Raises:
            SamplesUnreadable: They cannot be read, or all samples together unpack to too much.
        """
        return self._arrays(name + INPUTS), self._arrays(name + OUTPUTS)

    def _arrays(self, entry: str) -> dict[str, Array]:
        try:
            with zipfile.ZipFile(io.BytesIO(self._read(entry))) as packed:
                members = packed.infolist()
                if len(members) > MAX_ARRAYS:
                    raise ValueError(f"has {len(members)} arrays; at most {MAX_ARRAYS} are read")
                self._unpacked += sum(member.file_size for member in members)
                if self._unpacked > MAX_BYTES:
                    raise ValueError(f"all samples unpack to more than {MAX_BYTES} bytes")
                found = {}
                for member in members:
                    if not member.filename.endswith(".npy"):
                        raise ValueError(f"holds {member.filename[:80]!r}, which is no .npy")
                    with packed.open(member) as stream:
                        # By its size: read() alone unpacks in steps of 2 GiB.
                        content = stream.read(member.file_size)
                    found[member.filename.removesuffix(".npy")] = _array(content, member.filename)
                return found
        except _DAMAGED as error:
            raise SamplesUnreadable(f"{entry}: {str(error)[:200] or type(error).__name__}") from None

    def _read(self, entry: str) -> bytes:
        offset, size = self._entries[entry]
        with self._path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) != size:
            raise EOFError(f"{entry} is cut short")
        return content


def _entries(path: Path) -> dict[str, tuple[int, int]]:
    """Return where each file of the archive stands: its offset and length."""
    found: dict[str, tuple[int, int]] = {}
    with tarfile.open(path, "r:") as packed:
        for member in packed:
            name = member.name.removeprefix("./")
            if member.isdir():
                continue
            # Not isreg(): that is true of sparse entries, too, which unpack to more than there is.
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                raise ValueError(f"entry {name[:80]!r} is no plain file")
            if name in found:
                raise ValueError(f"has two entries {name[:80]!r}")
            if name != TOLERANCES and not _is_sample(name):
                raise ValueError(
                    f"entry {name[:80]!r}: expected <name>{INPUTS}, <name>{OUTPUTS} or {TOLERANCES}"
                )
            found[name] = (member.offset_data, member.size)
            if len(found) > 2 * MAX_SAMPLES + 1:
                raise ValueError(f"has more than {MAX_SAMPLES} samples")
    for name in found:
        other = _counterpart(name)
        if other not in found:
            raise ValueError(f"has {name} and no {other}")
    return found


def _is_sample(name: str) -> bool:
    return any(name.endswith(end) and _NAME.fullmatch(name.removesuffix(end)) for end in (INPUTS, OUTPUTS))


def _counterpart(name: str) -> str:
    if name.endswith(INPUTS):
        return name.removesuffix(INPUTS) + OUTPUTS
    return name.removesuffix(OUTPUTS) + INPUTS if name.endswith(OUTPUTS) else name


def _array(content: bytes, name: str) -> Array:
    """Read one .npy (format 1.0 and 2.0); its length is compared before anything is allocated for it."""
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name}: expected .npy format 1.0 or 2.0, found {version}")
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = header(stream, max_header_size=_HEADER_BYTES)
    if dtype.kind not in _PLAIN or dtype.itemsize == 0:
        raise ValueError(f"{name}: expected numbers, truth values or text, found {dtype}")
    if len(shape) > MAX_RANK or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"{name}: expected at most {MAX_RANK} sizes from 0 on, found {shape}")
    data = memoryview(content)[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name}: expected data of shape {shape} and type {dtype}, found {len(data)} bytes")
    flat = np.frombuffer(data, dtype) if len(data) else np.empty(0, dtype)
    array = flat.reshape(shape, order="F" if by_columns else "C")
    if dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "U":
        return array.astype(object)
    return array.astype(dtype.newbyteorder("="))


def _tolerances(raw: bytes) -> Tolerances:
    if len(raw) > _TOLERANCES_BYTES:
        raise SamplesUnreadable(f"{TOLERANCES}: expected at most {_TOLERANCES_BYTES} bytes, found {len(raw)}")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise SamplesUnreadable(f"{TOLERANCES}: expected JSON: {error}") from None
    members = _object(document, "", ("default", "outputs"))
    outputs = _object(members.get("outputs", {}), "outputs", None)
    return Tolerances(
        _tolerance(members.get("default", {}), "default"),
        {name: _tolerance(value, f"outputs.{name[:80]}") for name, value in outputs.items()},
    )


def _tolerance(value: object, where: str) -> dict[str, float]:
    found = _object(value, where, ("absolute", "relative"))
    for name, number in found.items():
        most = 1.0 if name == "relative" else math.inf
        if type(number) not in (int, float) or not 0 <= number <= most:
            upto = "up to 1" if name == "relative" else "0 or more"
            raise SamplesUnreadable(
                f"{TOLERANCES}: {where}.{name}: expected a number, {upto}, found {str(number)[:40]}"
            )
    return found


def _object(value: object, where: str, known: tuple[str, ...] | None) -> dict[str, Any]:
    place = f"{TOLERANCES}: {where}" if where else TOLERANCES
    if not isinstance(value, dict):
        raise SamplesUnreadable(f"{place}: expected an object")
    for name in value:
        # A misspelt member would leave the default in force, and nobody would know.
        if known is not None and name not in known:
            raise SamplesUnreadable(f"{place}: expected {' and '.join(known)}, found {name[:80]!r}")
    return value
