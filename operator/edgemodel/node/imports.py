"""Offline bundles that somebody carried to this node: ``<store>/imports/<sha256 of the file>.tar``.

The agent looks here before it asks a registry. What it takes from a bundle it examines, judges and hashes as if it had come
over the network. A bundle goes when everything in it that this node is to hold is installed.

Promises: a file under its final name was whole and every blob in it had the right digest when it was put here.
"""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.image_layout import ImageLayout
from edgemodel.artifact.store import disk_errors, hash_file, sync_directory
from edgemodel.errors import Refused, Transient

FOLDER = "imports"


def place(bundle: Path, store: Path) -> Path:
    """Copy a bundle to where this node's agent looks, in one step; return where it is. Blocks.

    Raises:
        Refused: ``MalformedArtifact``, ``DigestMismatch``: it is no bundle, or damaged; nothing is left behind.
        Transient: ``DiskFull``, ``NotFound``, ``TransferFailed``.
    """
    ImageLayout.open(bundle).check_whole()
    folder = store / FOLDER
    with disk_errors(store, bundle.stat().st_size):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}.partial"
        try:
            shutil.copyfile(bundle, temporary)
            target = folder / f"{hash_file(temporary).digest().hex}.tar"
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(folder)
    return target


def layouts(store: Path) -> Iterator[ImageLayout]:
    """Return the bundles that are here; one that cannot be read is passed over (it was whole: the disk is failing)."""
    folder = store / FOLDER
    for path in sorted(folder.glob("*.tar")):
        with suppress(Refused, Transient):
            yield ImageLayout.open(path)


def holding(store: Path, manifest: Digest) -> ImageLayout | None:
    """Return a bundle with this model in it."""
    for layout in layouts(store):
        if layout.size(manifest) is not None:
            return layout
    return None


def drop_used(store: Path, wanted: Collection[Digest], installed: Collection[Digest]) -> list[Path]:
    """Remove bundles none of whose models is still waited for; return what went.

    Args:
        store: the store's root.
        wanted: manifests that this node is to hold.
        installed: those of them that it holds.
    """
    gone = []
    for layout in layouts(store):
        with suppress(Refused):
            models = {reference.digest for reference in layout.models}
            here = {digest for digest in models if digest in installed}
            if here and not any(digest in wanted and digest not in installed for digest in models):
                layout.path.unlink(missing_ok=True)
                gone.append(layout.path)
    return gone
