"""A model directory: the files of one artifact as an inference server opens them.

::

    <directory>/model.onnx, weights/…   the artifact's files; raw ones are hard links to verified blobs
    <directory>/.edgemodel/             what delivery keeps for itself: the manifest and signatures, blobs on their way
    <directory>/model.json              written last: the directory is whole when it exists

Promises: ``model.json`` exists only beside files that were all verified; paths stay inside the directory. The contract with
the inference server is docs/reference/model-directory.md. Leaves to others: what is put in (``pull``).
"""

import json
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import ModelFile, Paths
from edgemodel.artifact.store import Store, disk_errors, hash_file, sync_directory
from edgemodel.artifact.tar import unpack
from edgemodel.errors import Stalled

MODEL_JSON = "model.json"
PRIVATE = ".edgemodel"
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Description:
    """What ``model.json`` says."""

    name: str
    version: str
    """Empty when nobody said one: the server then has its default."""
    digest: Digest
    file: str
    """Path of the entry file, relative to the directory."""

    def to_json(self) -> str:
        """Return the file's content."""
        document = {
            "schemaVersion": 1,
            "name": self.name,
            **({"version": self.version} if self.version else {}),
            "digest": str(self.digest),
            "file": self.file,
        }
        return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def entry_file(paths: Sequence[str], wanted: str | None) -> str:
    """Return the file that an inference server opens: the one asked for, or the only ``*.onnx``.

    Raises:
        Stalled: ``ModelFileNotFound`` or ``AmbiguousModelFile``; the message lists what there is.
    """
    if wanted:
        if wanted in paths:
            return wanted
        raise Stalled(
            "ModelFileNotFound",
            f"the artifact has no file {wanted!r}; it has {_listed(paths)}. Mend spec.modelFile",
        )
    models = [path for path in paths if path.lower().endswith(".onnx")]
    if len(models) == 1:
        return models[0]
    if not models:
        raise Stalled(
            "ModelFileNotFound",
            f"the artifact has no .onnx file; it has {_listed(paths)}. Publish one, or name the file in spec.modelFile",
        )
    raise Stalled(
        "AmbiguousModelFile",
        f"the artifact has {len(models)} .onnx files: {_listed(models)}. Name one in spec.modelFile (--model-file)",
    )


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more if paths else "no files"


def reserved() -> Paths:
    """Return the paths of an empty model directory: those that no artifact may bring."""
    paths = Paths()
    paths.add(MODEL_JSON)
    paths.add(PRIVATE)  # as a file: so nothing may lie below it either
    return paths


def check_files(files: Sequence[ModelFile]) -> list[str]:
    """Return the paths of the raw files.

    Raises:
        Refused: ``MalformedArtifact``; a path is reserved for delivery.
    """
    paths = reserved()
    return [paths.add(file.path) for file in files if file.packing == "raw"]


def described(directory: Path) -> Digest | None:
    """Return the digest that a whole directory holds; None when it is not whole, or says nothing that can be read."""
    try:
        return Digest.parse(json.loads((directory / MODEL_JSON).read_bytes())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def holds(directory: Path, files: Sequence[ModelFile]) -> bool:
    """Say whether a directory has these raw files with the right bytes, and nothing else. Reads all of them: blocks."""
    try:
        return present(directory) == {file.path for file in files} and all(
            file.packing == "raw"
            and (found := hash_file(directory / file.path)).digest() == file.descriptor.digest
            and found.size == file.descriptor.size
            for file in files
        )
    except OSError:
        return False


def present(directory: Path) -> set[str] | None:
    """Return the paths of the files in a directory but for delivery's own; None when there is a link or the like.

    Raises:
        OSError: the disk's own.
    """
    found: set[str] = set()
    for folder, folders, names in os.walk(directory):
        here = Path(folder)
        own = (PRIVATE, MODEL_JSON) if here == directory else ()
        folders[:] = [name for name in folders if name not in own]
        for path in (here / name for name in (*folders, *names) if name not in own):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found.add(path.relative_to(directory).as_posix())
            elif not stat.S_ISDIR(mode):
                return None
    return found


def clear(directory: Path) -> None:
    """Empty a directory, but for what delivery keeps for itself; ``model.json`` goes first."""
    with disk_errors(directory, 0):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MODEL_JSON).unlink(missing_ok=True)
        for entry in directory.iterdir():
            if entry.name == PRIVATE:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def fill(directory: Path, files: Sequence[ModelFile], store: Store) -> list[str]:
    """Put the artifact's files into a cleared directory, out of blobs that are in the store; return their paths.

    Raises:
        Refused: ``MalformedArtifact``; a path is not safe, or taken.
        Transient: ``DiskFull``.
    """
    paths = reserved()
    found: list[str] = []
    for file in files:
        if file.packing == "raw":
            path = paths.add(file.path)
            store.link(file.descriptor, directory / path)
            found.append(path)
        else:
            with disk_errors(directory, file.descriptor.size):
                blob = store.path(file.descriptor.digest)
                found += unpack(blob, file, directory, paths, durable=store.durable)
    return found


def finish(directory: Path, description: Description, *, durable: bool, private: Path | None = None) -> None:
    """Write ``model.json``, in one step.

    Args:
        directory: whose files are all there.
        description: what it says.
        durable: flush to disk, the names of all files in the directory included.
        private: a folder on the same file system where it is written first; the directory's own by default.

    Raises:
        Transient: ``DiskFull``.
    """
    with disk_errors(directory, 4096):
        if durable:
            for folder, _, _ in os.walk(directory):
                sync_directory(Path(folder))
        temporary = (private or directory / PRIVATE) / MODEL_JSON
        temporary.parent.mkdir(exist_ok=True)
        # What a crash left is read-only and could not be written by who is not root; and nothing is followed.
        temporary.unlink(missing_ok=True)
        with temporary.open("x", encoding="utf-8") as file:
            file.write(description.to_json())
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.chmod(0o444)
        temporary.replace(directory / MODEL_JSON)
        if durable:
            sync_directory(directory)
