"""Golden samples as publishers have them, a folder, and as they travel, one reproducible tar archive.

::

    <name>.inputs.npz    one array for each input of the model
    <name>.outputs.npz   what it is to answer; may be missing in a folder, never in an archive
    tolerances.json      how exactly; may be missing

Promises: the same files give the same archive, bit by bit; what is packed stays within what the inference server reads.
Leaves to others: what is in the arrays (the inference server, which runs them: ``inference_process``).
Format: docs/reference/artifact-format.md, "Samples".
"""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgemodel.artifact import media_types, strict_json
from edgemodel.artifact.inference_process import check_golden, run_samples
from edgemodel.artifact.manifest import MAX_SAMPLES_BYTES, Descriptor, ModelFile, Paths
from edgemodel.artifact.oci_manifest import malformed
from edgemodel.artifact.store import hash_file
from edgemodel.artifact.tar import index, unpack
from edgemodel.errors import Refused, Stalled

INPUTS, OUTPUTS, TOLERANCES = ".inputs.npz", ".outputs.npz", "tolerances.json"
MAX_SAMPLES = 64
_MAX_TOLERANCES_BYTES = 64 << 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_FORM = f"expected <name>{INPUTS}, <name>{OUTPUTS} and {TOLERANCES}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One of them, on disk."""

    name: str
    inputs: Path
    outputs: Path | None
    """None: what the model answers is still to be computed."""


@dataclass(frozen=True, slots=True)
class Golden:
    """All samples of one version, by name."""

    samples: tuple[Sample, ...]
    tolerances: Path | None

    @property
    def inputs(self) -> list[Path]:
        """The inputs alone."""
        return [sample.inputs for sample in self.samples]

    @property
    def whole(self) -> bool:
        """Whether every sample says what is to be answered."""
        return all(sample.outputs is not None for sample in self.samples)

    def unanswered(self) -> "Golden":
        """Return the same inputs for another version, whose answers are its own."""
        return Golden(tuple(replace(sample, outputs=None) for sample in self.samples), self.tolerances)


@dataclass(frozen=True, slots=True)
class Listing:
    """What an archive holds, by its table of contents."""

    samples: tuple[str, ...]
    tolerances: Any
    """The document, as somebody wrote it; None when there is none."""


def collect(place: Path, folder: Path) -> Golden:
    """Return the samples of a folder, or of an archive, which is unpacked below ``folder``.

    Raises:
        Stalled: ``InvalidSpec``; names the file.
        Refused: ``MalformedArtifact``; the archive is damaged.
    """
    if place.is_dir():
        files = {path.name: path for path in place.iterdir() if not path.name.startswith(".")}
    elif place.is_file():
        files = _unpacked(place, folder)
    else:
        raise Stalled(
            "InvalidSpec", f"{place}: expected a folder of golden samples or their archive, found nothing"
        )
    for name, path in files.items():
        if not path.is_file() or (problem := _problem(name)):
            raise Stalled("InvalidSpec", f"{path}: {problem if path.is_file() else 'is no file; ' + _FORM}")
    samples = []
    for name in sorted(files):
        stem = name.removesuffix(INPUTS)
        if name.endswith(OUTPUTS) and name.removesuffix(OUTPUTS) + INPUTS not in files:
            raise Stalled("InvalidSpec", f"{files[name]}: expected the inputs, {INPUTS[1:]}, beside it")
        if name.endswith(INPUTS):
            samples.append(Sample(stem, files[name], files.get(stem + OUTPUTS)))
    if not 0 < len(samples) <= MAX_SAMPLES:
        raise Stalled(
            "InvalidSpec",
            f"{place}: expected 1 to {MAX_SAMPLES} samples, <name>{INPUTS}; found {len(samples)}",
        )
    return Golden(tuple(samples), files.get(TOLERANCES))


def answered(golden: Golden, model: Path, folder: Path) -> Golden:
    """Return samples that all say what is to be answered: where nobody said it, what the model answers; blocks.

    Args:
        golden: the samples.
        model: an ONNX file, its weights beside it.
        folder: an empty one, for what is computed.

    Raises:
        Stalled: ``InvalidSpec``; the model could not be run.
    """
    open_ones = [sample for sample in golden.samples if sample.outputs is None]
    if not open_ones:
        return golden
    inputs, outputs = folder / "inputs", folder / "outputs"
    inputs.mkdir(parents=True)
    outputs.mkdir()
    for sample in open_ones:
        (inputs / f"{sample.name}.npz").symlink_to(sample.inputs.resolve())
    run_samples(model, [inputs / f"{sample.name}.npz" for sample in open_ones], outputs)
    return replace(
        golden,
        samples=tuple(
            sample if sample.outputs is not None else replace(sample, outputs=outputs / f"{sample.name}.npz")
            for sample in golden.samples
        ),
    )


def pack(golden: Golden, archive: Path) -> None:
    """Write the archive.

    Raises:
        Stalled: ``InvalidSpec``; it would be too long.
    """
    content = io.BytesIO()
    # ustar with nothing of this machine in it: no owner, no time.
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as packed:
        for name, path in _entries(golden):
            header = tarfile.TarInfo(name)
            header.size, header.mode = path.stat().st_size, 0o444
            if content.tell() + header.size > MAX_SAMPLES_BYTES:
                raise Stalled(
                    "InvalidSpec",
                    f"golden samples: {path} would make them more than {MAX_SAMPLES_BYTES >> 20} MiB together; "
                    "take fewer or smaller ones",
                )
            with path.open("rb") as file:
                packed.addfile(header, file)
    if content.tell() > MAX_SAMPLES_BYTES:
        raise Stalled(
            "InvalidSpec", f"golden samples: expected at most {MAX_SAMPLES_BYTES >> 20} MiB together"
        )
    archive.write_bytes(content.getbuffer())


def check(model: Path, archive: Path) -> None:
    """Run packed samples as a server would; blocks.

    Raises:
        Refused: ``GoldenSamplesFailed``; the message has the server's words.
        Stalled: ``InvalidSpec``; the model could not be loaded.
    """
    found = check_golden(model, archive)
    if found.outcome != "Pass":
        more = f" ({found.passed} of {found.total} samples pass)" if found.total else ""
        raise Refused("GoldenSamplesFailed", f"{'; '.join(found.failures[:3])}{more}")


def listing(archive: Path) -> Listing:
    """Return what an archive says it holds; no array is read.

    Raises:
        Refused: ``MalformedArtifact``.
    """
    spans = index(archive)
    for name in spans:
        if problem := _problem(name):
            raise malformed(f"golden samples: {name[:80]!r}: {problem}")
    tolerances = None
    if span := spans.get(TOLERANCES):
        with archive.open("rb") as file:
            file.seek(span.offset)
            content = file.read(min(span.size, _MAX_TOLERANCES_BYTES + 1))
        try:
            tolerances = strict_json.parse(content, max_bytes=_MAX_TOLERANCES_BYTES)
        except strict_json.NotStrictJson as error:
            raise malformed(f"golden samples: {TOLERANCES} {error}") from None
    return Listing(
        tuple(sorted(name.removesuffix(INPUTS) for name in spans if name.endswith(INPUTS))), tolerances
    )


def _unpacked(archive: Path, folder: Path) -> dict[str, Path]:
    hasher = hash_file(archive)
    if hasher.size > MAX_SAMPLES_BYTES:
        raise Stalled(
            "InvalidSpec",
            f"{archive}: expected at most {MAX_SAMPLES_BYTES} bytes of golden samples, found {hasher.size}",
        )
    layer = ModelFile(archive.name, Descriptor(media_types.SAMPLES, hasher.digest(), hasher.size), "tar")
    folder.mkdir(parents=True)
    return {name: folder / name for name in unpack(archive, layer, folder, Paths())}


def _problem(name: str) -> str:
    """Say what is wrong with the name of a file; "" when nothing is."""
    if name == TOLERANCES:
        return ""
    for end in (INPUTS, OUTPUTS):
        if name.endswith(end):
            fits = _NAME.fullmatch(name.removesuffix(end))
            return "" if fits else "expected a name of up to 63 letters, digits, '.', '_' and '-'"
    return f"is none of golden samples; {_FORM}"


def _entries(golden: Golden) -> Iterator[tuple[str, Path]]:
    for sample in golden.samples:
        assert sample.outputs is not None, "answered before"
        yield sample.name + INPUTS, sample.inputs
        yield sample.name + OUTPUTS, sample.outputs
    if golden.tolerances is not None:
        yield TOLERANCES, golden.tolerances
