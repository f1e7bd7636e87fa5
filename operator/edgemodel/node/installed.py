"""One installed model: its directory, the record that says it was verified, and how both are made.

::

    <store>/models/<key>/            the directory that pods mount; read-only for everybody, nothing private inside
    <store>/installed/<key>.json     what was verified in it, and since which boot
    <store>/staging/                 one directory on its way; whoever works there holds the store's lock
    <store>/aside/                   directories that were taken down and may still be mounted

Promises
- A directory gets its name when it is whole and on disk, and never changes afterwards: another content is another directory.
- ``stands`` is cheap and says yes only when every file is the very one that was verified since the node started: raw files
  are the blobs themselves (hard links), so that doubting a blob takes down every model that has it, in one step.

Leaves to others: locks and what is kept (``store``), bytes (``verified``), judgement (``trust``).
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Self

from edgemodel.artifact import model_directory, tar
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import ModelFile
from edgemodel.artifact.model_directory import MODEL_JSON, Description
from edgemodel.artifact.store import disk_errors, hash_file, sync_directory
from edgemodel.errors import EdgeModelError
from edgemodel.node.small_file import read_small, write_small
from edgemodel.node.verified import Mark, VerifiedBlobs, mark

_FOLDER_MODE = 0o555
_FILE_MODE = 0o444


def key_of(digest: Digest, model_file: str | None) -> str:
    """Return the name of a model's directory: one for each entry file that somebody named."""
    if not model_file:
        return digest.hex
    return f"{digest.hex}-{sha256(model_file.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Record:
    """What was verified in a model directory."""

    boot: str
    raw: dict[str, Digest]
    """Path of each file that is a blob."""
    archives: tuple[Digest, ...]
    """Blobs that were unpacked."""
    made: dict[str, Mark]
    """Files that were written here: ``model.json`` and what was in archives."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a record; None when there is none that can be understood."""
        try:
            document = json.loads(read_small(path))
            return cls(
                str(document["boot"]),
                {str(name): Digest(digest) for name, digest in document["raw"].items()},
                tuple(Digest(digest) for digest in document["archives"]),
                {
                    str(name): (int(inode), int(size), int(time))
                    for name, (inode, size, time) in document["made"].items()
                },
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, path: Path) -> None:
        """Leave the record; not flushed: without it the directory is looked through again."""
        document = {"boot": self.boot, "raw": self.raw, "archives": self.archives, "made": self.made}
        write_small(path, json.dumps(document).encode(), durable=False)

    @property
    def blobs(self) -> frozenset[Digest]:
        """Every blob that the directory is made of."""
        return frozenset((*self.raw.values(), *self.archives))

    def stands(self, directory: Path, blobs: VerifiedBlobs) -> bool:
        """Say whether the directory still is what was verified, since the node started. Reads no content."""
        if self.boot != blobs.boot:
            return False
        held = {digest: blobs.holds(digest) for digest in self.blobs}
        if None in held.values():
            return False
        try:
            return all(
                mark((directory / path).lstat()) == mark(there)
                for path, digest in self.raw.items()
                if (there := held[digest]) is not None
            ) and all(mark((directory / path).lstat()) == known for path, known in self.made.items())
        except OSError:
            return False


def examine_directory(
    directory: Path,
    files: tuple[ModelFile, ...],
    model_file: str | None,
    description: Description,
    blobs: VerifiedBlobs,
) -> Record | None:
    """Look a directory through that stands under its final name; None when it is not exactly what it should be.

    The blobs are believed, whoever calls has hashed them; what was unpacked from them is read and compared.
    """
    raw = {file.path: file.descriptor.digest for file in files if file.packing == "raw"}
    archives = [file for file in files if file.packing != "raw"]
    try:
        for path, digest in raw.items():
            if not os.path.samestat((directory / path).lstat(), blobs.path(digest).lstat()):
                return None
        made = {MODEL_JSON: mark((directory / MODEL_JSON).lstat())}
        for archive in archives:
            for path, expected in tar.hashes(blobs.path(archive.descriptor.digest), archive).items():
                made[path] = mark((directory / path).lstat())
                found = hash_file(directory / path)
                if (found.digest(), found.size) != (expected.digest(), expected.size):
                    return None
        if model_directory.present(directory) != {*raw, *made} - {MODEL_JSON}:
            return None
        described = _with_entry(description, [*raw, *(made.keys() - {MODEL_JSON})], model_file)
        if (directory / MODEL_JSON).read_text(encoding="utf-8") != described.to_json():
            return None
        _read_only(directory)
    except (OSError, ValueError, EdgeModelError):
        return None
    return Record(blobs.boot, raw, tuple(archive.descriptor.digest for archive in archives), made)


def make_directory(
    directory: Path,
    files: tuple[ModelFile, ...],
    model_file: str | None,
    description: Description,
    blobs: VerifiedBlobs,
) -> Record:
    """Make a model directory out of blobs; ``directory`` must not exist.

    Args:
        directory: its final name, ``<store>/models/<key>``.
        files: of the judged artifact; their blobs are here and right.
        model_file: the entry file that somebody named.
        description: what ``model.json`` says; its ``file`` is found here.
        blobs: where they are.

    Raises:
        Refused: ``MalformedArtifact``.
        Stalled: ``ModelFileNotFound``, ``AmbiguousModelFile``.
        Transient: ``DiskFull``.
    """
    staging = blobs.root / "staging"
    temporary = staging / directory.name
    with disk_errors(blobs.root, 0):
        remove_tree(staging)
        temporary.mkdir(parents=True)
        directory.parent.mkdir(exist_ok=True)
    paths = model_directory.fill(temporary, files, blobs)
    described = _with_entry(description, paths, model_file)
    model_directory.finish(temporary, described, durable=True, private=staging)
    with disk_errors(blobs.root, 0):
        temporary.rename(directory)
        # Not before: a folder that is read-only cannot be moved by who is not root.
        _read_only(directory)
        sync_directory(directory.parent)
        sync_directory(staging)
        staging.rmdir()
        raw = {file.path: file.descriptor.digest for file in files if file.packing == "raw"}
        made = [path for path in (*paths, MODEL_JSON) if path not in raw]
        return Record(
            blobs.boot,
            raw,
            tuple(file.descriptor.digest for file in files if file.packing != "raw"),
            {path: mark((directory / path).lstat()) for path in made},
        )


def set_aside(directory: Path, aside: Path, name: str) -> Path | None:
    """Take a model directory's name away in one step; return where it is now, None when there is none.

    What is mounted in pods stays as it is there.
    """
    if not directory.is_dir():
        return None
    aside.mkdir(exist_ok=True)
    directory.chmod(0o755)  # or who is not root could not move it
    return directory.rename(aside / name)


def remove_tree(path: Path) -> None:
    """Remove a folder and everything in it, be it read-only; nothing happens when it is not there."""
    if not path.is_dir():
        return
    for folder, _, _ in os.walk(path):
        Path(folder).chmod(0o700)
    shutil.rmtree(path)


def _with_entry(description: Description, paths: Sequence[str], model_file: str | None) -> Description:
    return replace(description, file=model_directory.entry_file(paths, model_file))


def _read_only(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        for path, mode in (
            *((Path(folder, name), _FILE_MODE) for name in names),
            (Path(folder), _FOLDER_MODE),
        ):
            if path.lstat().st_mode & 0o777 != mode:
                path.chmod(mode)
