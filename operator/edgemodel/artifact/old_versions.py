"""Brings the files of published versions to disk, so that deltas can be made from or to them.

Promises: every file has the digest that its manifest says; files that lie in a folder already are used where they are, once
they were hashed. Leaves to others: who signed them. A base is no more than bytes, and a wrong one makes a delta that nobody
can use.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgemodel.artifact import golden_samples
from edgemodel.artifact.delta_publish import LocalFile, Version
from edgemodel.artifact.golden_samples import Golden
from edgemodel.artifact.manifest import SAMPLES_PATH, Manifest, ModelFile, model_files
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.store import Store, hash_file
from edgemodel.artifact.transfer import Progress, fetch


@dataclass(frozen=True, slots=True)
class Published:
    """A version that is in a registry, and its files on disk."""

    reference: Reference
    """Pinned."""
    manifest: bytes = field(repr=False)
    version: Version


async def bring(
    registry: Registry,
    reference: Reference,
    folder: Path,
    *,
    folders: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Published:
    """Return a published version with its files on disk.

    Args:
        registry: where to fetch from.
        reference: by tag or digest.
        folder: for what has to be fetched; of this version only.
        folders: where its files may lie already, at their paths: an earlier pull's, for one.
        progress: called as bytes arrive.

    Raises:
        Refused: ``DigestMismatch``, ``MalformedArtifact``.
        Transient: ``RegistryUnreachable``, ``AuthenticationFailed``, ``NotFound``, ``TransferFailed``, ``DiskFull``.
    """
    pinned = reference.pinned(await registry.resolve(reference))
    content = await registry.manifest(pinned)
    store = Store(folder, durable=False)
    files = []
    for file in model_files(Manifest.parse(content)):
        here = await asyncio.to_thread(_lying, file, folders)
        if here is None:
            await fetch(registry, pinned, file.descriptor, store, progress)
            here = store.path(file.descriptor.digest)
            if file.packing == "raw":
                # At its path: tensors are found by names of files, and an ONNX graph says where its weights lie.
                named = folder / "files" / file.path
                store.link(file.descriptor, named)
                here = named
        files.append(LocalFile(file.path, file.descriptor, here))
    return Published(pinned, content, Version(str(reference), tuple(files)))


def samples_of(published: Published, folder: Path) -> Golden | None:
    """Return the golden samples that a version brings along, unpacked below ``folder``; None when it brings none.

    Raises:
        Refused: ``MalformedArtifact``.
        Stalled: ``InvalidSpec``.
    """
    for file in published.version.files:
        if file.path == SAMPLES_PATH:
            return golden_samples.collect(file.file, folder)
    return None


def _lying(file: ModelFile, folders: Sequence[Path]) -> Path | None:
    for folder in folders:
        path = folder / file.path
        if file.packing != "raw" or not path.is_file() or path.stat().st_size != file.descriptor.size:
            continue
        if hash_file(path).digest() == file.descriptor.digest:
            return path
    return None
