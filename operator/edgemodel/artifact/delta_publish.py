"""Makes deltas between versions of a model and attaches them to the new one.

For each file that changed every codec that may help is tried, what it made is applied again and hashed, and the smallest is
kept; a patch over ``WORTH_IT`` of the file is dropped, because it saves too little for what it costs to store and apply.

Promises: a patch that was kept gives the new file, bit by bit; the same files give the same patches and the same manifests;
input files are never changed. Leaves to others: the codecs (``delta``), where old files come from (``old_versions``).
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from edgemodel.artifact import media_types
from edgemodel.artifact.attach import Attached, refer
from edgemodel.artifact.delta import codec as codecs
from edgemodel.artifact.delta.quant import TensorSteps
from edgemodel.artifact.delta.tensors import TensorSpan, tensors_of
from edgemodel.artifact.delta_artifact import DeltaLayer, build_delta_manifest
from edgemodel.artifact.digest import Digest, Hasher
from edgemodel.artifact.manifest import EMPTY_CONFIG, Descriptor, Manifest
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.store import READ_BYTES, disk_errors, hash_file
from edgemodel.errors import EdgeModelError

WORTH_IT = 0.8
"""Share of the file above which a delta is dropped."""
PACKED_WORTH_IT = 0.9
"""The same for a file that is only packed: every node can use it, whatever it has."""
SMALLEST = 4096
"""Files with fewer bytes are sent whole: a delta's own requests cost as much."""
GOOD_ENOUGH = 0.01
"""Once a patch has so small a share of the file, slower codecs are not tried."""
HDIFF_LIMIT = 64 << 20
"""Bytes of old and new file together up to which hdiff is tried: it takes about 1 s for each MB."""
_WHOLE_NUMBERS = ("I8", "U8")
_PACKED = "planes"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """One layer of a version, on disk."""

    path: str
    """In the artifact; of an archive, what its publisher calls it."""
    descriptor: Descriptor
    file: Path


@dataclass(frozen=True, slots=True)
class Version:
    """All layers of one version."""

    name: str
    """Its reference, for people."""
    files: tuple[LocalFile, ...]

    def beside(self) -> dict[str, Path]:
        """Return the files by path: what an ONNX graph needs to say which numbers lie where in its weights."""
        return {file.path: file.file for file in self.files}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one codec made of one pair of files."""

    codec: str
    size: int | None
    """Bytes of the patch; None when there is none."""
    note: str = ""
    """Why there is none."""
    encode_seconds: float = 0.0
    apply_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one file that changed."""

    new: LocalFile
    old: LocalFile | None
    """None: there was none to match, or the file is only packed."""
    attempts: tuple[Attempt, ...]
    layer: DeltaLayer | None
    """The patch that was kept."""
    patch: Path | None
    why: str

    @property
    def saved(self) -> int:
        """Bytes that a node need not fetch."""
        return self.new.descriptor.size - self.layer.descriptor.size if self.layer else 0


def pair(new: Sequence[LocalFile], old: Sequence[LocalFile]) -> list[tuple[LocalFile, LocalFile | None]]:
    """Return each new file that no old one equals, with the old file that it most likely came from.

    That is the one at the same path; else, of those that no path claims, the next of the same type and ending.
    """
    known = {file.descriptor.digest for file in old}
    changed = [file for file in new if file.descriptor.digest not in known]
    by_path = {file.path: file for file in old}
    new_paths = {file.path for file in new}
    kept = {file.descriptor.digest for file in new}
    free: dict[tuple[str, str], list[LocalFile]] = {}
    for file in old:
        if file.path not in new_paths and file.descriptor.digest not in kept:
            free.setdefault(_kind(file), []).append(file)
    pairs: list[tuple[LocalFile, LocalFile | None]] = []
    for file in changed:
        match = by_path.get(file.path)
        if match is None and (left := free.get(_kind(file))):
            match = left.pop(0)
        pairs.append((file, match))
    return pairs


def _kind(file: LocalFile) -> tuple[str, str]:
    return file.descriptor.media_type, PurePosixPath(file.path).suffix.lower()


@dataclass
class Maker:
    """Makes patches into one folder; each pair of contents once, however many versions share it.

    Args:
        folder: for patches, made when missing; they must stay until they were pushed.
        steps: how ``delta_quantize`` moved the weights, by digest of the new file.
        everything: try all codecs, also where one is good enough: for ``inspect``.
        only: the codecs to try; all when empty.
    """

    folder: Path
    steps: Mapping[Digest, Sequence[TensorSteps]] = field(default_factory=dict)
    everything: bool = False
    only: tuple[str, ...] = ()
    _done: dict[tuple[Digest | None, Digest], Outcome] = field(default_factory=dict)

    def make(self, new: Version, old_versions: Sequence[Version]) -> list[list[Outcome]]:
        """Return what came of every changed file, for each old version in turn; blocks for long.

        A file that no delta helps with, whichever version it is made from, is packed if that is worth it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        made = []
        for old in old_versions:
            outcomes = []
            for file, match in pair(new.files, old.files):
                key = (match.descriptor.digest if match else None, file.descriptor.digest)
                if match is None:
                    outcome = Outcome(
                        file, None, (), None, None, f"{old.name} has no file that it could come from"
                    )
                elif (found := self._done.get(key)) is None:
                    outcome = self._done[key] = self._delta(file, match, new, old)
                else:
                    outcome = found
                outcomes.append(outcome)
            made.append(outcomes)
        for outcomes in made[:1]:
            outcomes.extend(self._packed(new, made))
        return made

    def _delta(self, new: LocalFile, old: LocalFile, after: Version, before: Version) -> Outcome:
        size = new.descriptor.size
        if size < SMALLEST:
            return Outcome(new, old, (), None, None, f"it has {size} bytes: sent whole, that is as quick")
        new_tensors = tensors_of(new.file, beside=after.beside())
        old_tensors = tensors_of(old.file, beside=before.beside())
        attempts: list[Attempt] = []
        best: tuple[int, str, Path] | None = None
        for name in codecs.NAMES:
            if name == _PACKED or (self.only and name not in self.only):
                continue
            if (reason := self._not_tried(name, new, old, new_tensors, best)) is not None:
                attempts.append(Attempt(name, None, reason))
                continue
            attempt, patch = self._attempt(name, new, old, old_tensors, new_tensors)
            attempts.append(attempt)
            if attempt.size is not None and (best is None or (attempt.size, name) < best[:2]):
                best = (attempt.size, name, patch)
        if best is None:
            return Outcome(new, old, tuple(attempts), None, None, "no codec could make a delta")
        smallest, name, patch = best
        share = smallest / size
        if share > WORTH_IT:
            why = (
                f"the smallest delta ({name}) has {share:.1%} of the file, more than {WORTH_IT:.0%}: the weights have "
                "little in common with the old ones, as after training from scratch, and nothing helps"
            )
            return Outcome(new, old, tuple(attempts), None, None, why)
        layer = self._layer(new, old, name, patch)
        return Outcome(
            new, old, tuple(attempts), layer, patch, f"{name} is the smallest, {share:.1%} of the file"
        )

    def _not_tried(
        self,
        name: str,
        new: LocalFile,
        old: LocalFile,
        tensors: Sequence[TensorSpan],
        best: tuple[int, str, Path] | None,
    ) -> str | None:
        both = new.descriptor.size + old.descriptor.size
        if name == "ulp" and not tensors:
            return "no tensors in it"
        if name == "hdiff" and both > HDIFF_LIMIT:
            return f"would take too long for {both >> 20} MiB"
        floats = sum(span.size for span in tensors if span.dtype not in _WHOLE_NUMBERS)
        if name == "hdiff" and floats * 2 > new.descriptor.size:
            return "takes minutes for floats, and ulp is smaller there"
        if not self.everything and best is not None and best[0] <= GOOD_ENOUGH * new.descriptor.size:
            return f"not needed, {best[1]} is small enough"
        return None

    def _packed(self, new: Version, made: Sequence[Sequence[Outcome]]) -> list[Outcome]:
        helped = {outcome.new.descriptor.digest for group in made for outcome in group if outcome.layer}
        tried = {
            outcome.new.descriptor.digest: outcome.new
            for group in made
            for outcome in group
            if outcome.new.descriptor.size >= SMALLEST
        }
        packed = []
        for digest, file in tried.items():
            if digest in helped or (self.only and _PACKED not in self.only):
                continue
            tensors = tensors_of(file.file, beside=new.beside())
            attempt, patch = self._attempt(_PACKED, file, None, [], tensors)
            share = (attempt.size or file.descriptor.size) / file.descriptor.size
            if share > PACKED_WORTH_IT:
                why = f"packed it has {share:.1%} of its size, more than {PACKED_WORTH_IT:.0%}: sent as it is"
                packed.append(Outcome(file, None, (attempt,), None, None, why))
            else:
                layer = self._layer(file, None, _PACKED, patch)
                why = f"packed without a base, {share:.1%} of the file"
                packed.append(Outcome(file, None, (attempt,), layer, patch, why))
        return packed

    def _attempt(
        self,
        name: str,
        new: LocalFile,
        old: LocalFile | None,
        old_tensors: Sequence[TensorSpan],
        new_tensors: Sequence[TensorSpan],
    ) -> tuple[Attempt, Path]:
        base = old.descriptor.digest.short if old else "nothing"
        patch = self.folder / f"{new.descriptor.digest.short}-{base}.{name}"
        began = time.perf_counter()
        with disk_errors(self.folder, new.descriptor.size):
            codecs.encode(
                name,
                old.file if old else None,
                new.file,
                patch,
                old_tensors=old_tensors,
                new_tensors=new_tensors,
                steps=self.steps.get(new.descriptor.digest, ()),
            )
        encoded = time.perf_counter()
        wrong = _wrong(new, old, patch)
        seconds = encoded - began, time.perf_counter() - encoded
        if wrong:
            return Attempt(name, None, wrong, *seconds), patch
        return Attempt(name, patch.stat().st_size, "", *seconds), patch

    @staticmethod
    def _layer(new: LocalFile, old: LocalFile | None, name: str, patch: Path) -> DeltaLayer:
        hasher = hash_file(patch)
        blob = Descriptor(media_types.DELTA_LAYER, hasher.digest(), hasher.size)
        return DeltaLayer(old.descriptor.digest if old else None, new.descriptor.digest, name, blob)


def _wrong(new: LocalFile, old: LocalFile | None, patch: Path) -> str:
    """Apply a patch as a node would, and say what is wrong with what comes out; empty when nothing is."""
    hasher = Hasher()
    try:
        codecs.apply(old.file if old else None, patch, hasher.update, size=new.descriptor.size)
    except EdgeModelError as error:
        return f"its patch cannot be applied ({error.message})"
    if hasher.digest() != new.descriptor.digest:
        return "its patch gives other bytes"
    return ""


async def attach_deltas(
    registry: Registry, reference: Reference, target: bytes, outcomes: Sequence[Outcome]
) -> Attached | None:
    """Push the patches that were kept and attach them to an artifact with one manifest; None when there are none.

    Args:
        registry: with credentials that may write.
        reference: the artifact, pinned, which is in the registry.
        target: the bytes of its manifest.
        outcomes: what ``Maker.make`` returned for one old version.

    Raises:
        Transient: as ``attach.refer``.
    """
    kept = {o.layer.descriptor.digest: (o.layer, o.patch) for o in outcomes if o.layer and o.patch}
    if not kept:
        return None
    for layer, patch in kept.values():
        blob = layer.descriptor
        await registry.put_blob(reference, blob.digest, blob.size, lambda patch=patch: _pieces(patch))  # type: ignore[misc]
    await registry.put_blob(reference, Digest.of(EMPTY_CONFIG), len(EMPTY_CONFIG), EMPTY_CONFIG)
    content = build_delta_manifest(Manifest.parse(target).descriptor, [layer for layer, _ in kept.values()])
    return await refer(registry, reference, content)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece
