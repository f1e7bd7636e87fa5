"""What leaves the store, and in which order: leftovers of what was interrupted, models over budget, blobs that are wrong.

Promises
- Every removal begins with the one step that takes the thing out of use (its record goes), so that a crash in the middle
  leaves either a model that is whole or none, and leftovers that the next collection finds.
- Nothing that is held, mounted, expected or just being written is removed; a mounted directory that was taken down is
  removed after its last pod has gone.
- Work grows with the number of files, not with their length: nothing is read but names and small records.

Everything here is called with the store's lock held, but for ``artifacts``. Leaves to others: what is held (the agent).
"""

import fcntl
import os
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Manifest
from edgemodel.errors import Refused
from edgemodel.node import small_file
from edgemodel.node.installed import Record, remove_tree, set_aside
from edgemodel.node.usage import size_of

if TYPE_CHECKING:
    from edgemodel.node.store import Held, NodeStore

_PARTIAL = ".partial"
_LINK = ".link"


def artifacts(store: "NodeStore") -> list[Digest]:
    """Return the artifacts that are here or on their way, those used longest ago first."""
    found = []
    for path in _entries(store.root / "artifacts"):
        with suppress(ValueError, FileNotFoundError):
            found.append((path.stat().st_mtime_ns, Digest("sha256:" + path.name.removesuffix(".json"))))
    return [digest for _, digest in sorted(found)]


def keys(store: "NodeStore", digest: Digest) -> list[str]:
    """Return the names of all directories of a model, in whatever state they are."""
    names = {path.name for path in _entries(store.root / "models")}
    names |= {path.name.removesuffix(".json") for path in _entries(store.root / "installed")}
    return sorted(name for name in names if name.partition("-")[0] == digest.hex)


def take_down(store: "NodeStore", key: str) -> None:
    """Take a directory's name away; its files go with the next collection that finds it mounted nowhere."""
    store.record(key).unlink(missing_ok=True)
    set_aside(store.root / "models" / key, store.root / "aside", f"{key}.{uuid.uuid4().hex[:8]}")


def condemn(store: "NodeStore", blobs: Collection[Digest]) -> list[Digest]:
    """Remove wrong blobs and every directory made of them; return the manifests of the models."""
    for digest in blobs:
        store.blobs.doubt(digest)
    models = []
    for path in _entries(store.root / "installed"):
        record = Record.read(path)
        key = path.name.removesuffix(".json")
        if record is None or not record.blobs.isdisjoint(blobs):
            take_down(store, key)
            with suppress(ValueError):
                models.append(Digest("sha256:" + key.partition("-")[0]))
    for digest in blobs:
        store.blobs.path(digest).unlink(missing_ok=True)
    return models


def drop(store: "NodeStore", digest: Digest) -> None:
    """Remove a blob and its beginning, unless an artifact refers to it."""
    if any(digest in (_blobs_of(store, artifact) or ()) for artifact in artifacts(store)):
        return
    _remove_blob(store, digest)
    partial = store.blobs.partial(digest)
    if not _being_written(partial):
        partial.unlink(missing_ok=True)


def collect(store: "NodeStore", held: "Held", need: int) -> list[Digest]:
    """Remove leftovers, then evict until ``need`` more bytes fit; return what was evicted."""
    _half_done(store, held)
    _stale_small_files(store)
    references = _abandoned(store, held)
    _unreferenced_blobs(store, references)
    return _evict(store, held, references, need)


def _half_done(store: "NodeStore", held: "Held") -> None:
    """Remove directories on their way in, and those on their way out that are mounted nowhere."""
    # Whoever makes a directory holds the lock that is ours now.
    remove_tree(store.root / "staging")
    for directory in _entries(store.root / "aside"):
        if directory not in held.mounted:
            remove_tree(directory)
    for path in _entries(store.root / "installed"):
        key = path.name.removesuffix(".json")
        if not (store.root / "models" / key).is_dir():
            path.unlink(missing_ok=True)
    for path in _entries(store.root / "blobs" / "sha256"):
        if path.name.endswith(_LINK):
            path.unlink(missing_ok=True)


def _stale_small_files(store: "NodeStore") -> None:
    for folder in ("artifacts", "installed", "verified"):
        for path in _entries(store.root / folder):
            if path.name.endswith(small_file.SUFFIX) and _old(path, store.grace):
                path.unlink(missing_ok=True)


def _abandoned(store: "NodeStore", held: "Held") -> dict[Digest, frozenset[Digest]]:
    """Remove artifacts that never got a directory and are no longer wanted, and directories without an artifact.

    Returns each artifact that is left with the blobs it is made of.
    """
    references = {}
    known = artifacts(store)
    directories = Counter(path.name.partition("-")[0] for path in _entries(store.root / "models"))
    for digest in known:
        path = store.root / "artifacts" / f"{digest.hex}.json"
        wanted = digest in held.pinned or directories[digest.hex] > 0 or not _old(path, store.grace)
        blobs = _blobs_of(store, digest) if wanted else None
        if blobs is None:
            path.unlink(missing_ok=True)
        else:
            references[digest] = blobs
    for directory in _entries(store.root / "models"):
        hexadecimal = directory.name.partition("-")[0]
        if all(digest.hex != hexadecimal for digest in references) and directory not in held.mounted:
            take_down(store, directory.name)
    for directory in _entries(store.root / "aside"):
        if directory not in held.mounted:
            remove_tree(directory)
    return references


def _blobs_of(store: "NodeStore", digest: Digest) -> frozenset[Digest] | None:
    examined = store.examined(digest)
    if examined is None:
        return None
    with suppress(Refused):
        return frozenset(layer.digest for layer in Manifest.parse(examined.manifest_bytes).layers)
    return None


def _unreferenced_blobs(store: "NodeStore", references: dict[Digest, frozenset[Digest]]) -> None:
    """Remove blobs, and beginnings of blobs, that belong to no artifact and to nobody's work; and records of none."""
    referred = frozenset[Digest]().union(*references.values())
    for path in _entries(store.root / "blobs" / "sha256"):
        try:
            digest = Digest("sha256:" + path.name.removesuffix(_PARTIAL))
        except ValueError:
            continue
        if store.expected(digest) or (path.name.endswith(_PARTIAL) and _being_written(path)):
            continue
        if path.name.endswith(_PARTIAL):
            # Of a blob that is here too, it was the lock of a writer that died.
            if digest not in referred or store.has(digest):
                _remove_old(path, store.grace)
        elif digest not in referred and _old(path, store.grace):
            _remove_blob(store, digest)
    for path in store.blobs.recorded():
        with suppress(ValueError):
            digest = Digest("sha256:" + path.name)
            if not store.blobs.path(digest).exists():
                store.blobs.doubt(digest)


def _evict(
    store: "NodeStore", held: "Held", references: dict[Digest, frozenset[Digest]], need: int
) -> list[Digest]:
    usage = store.usage()
    over = max(usage.used + need - usage.budget, need - usage.free)
    users = Counter(blob for blobs in references.values() for blob in blobs)
    evicted = []
    for digest in artifacts(store):
        if over <= 0:
            break
        directories = store.directories(digest)
        if (
            digest in held.pinned
            or digest not in references
            or any(directory in held.mounted for directory in directories)
            or any(store.expected(blob) for blob in references[digest])
        ):
            continue
        for directory in directories:
            take_down(store, directory.name)
        (store.root / "artifacts" / f"{digest.hex}.json").unlink(missing_ok=True)
        users.subtract(references[digest])
        # Files of a directory that are also blobs are counted when the blob goes.
        kept: set[int] = set()
        for blob in references[digest]:
            with suppress(FileNotFoundError):
                status = store.blobs.path(blob).stat()
                kept.add(status.st_ino)
                if users[blob] == 0:
                    over -= status.st_size
            partial = store.blobs.partial(blob)
            if users[blob] == 0:
                _remove_blob(store, blob)
                if partial.exists() and not _being_written(partial):
                    over -= partial.stat().st_size
                    partial.unlink(missing_ok=True)
        for directory in _entries(store.root / "aside"):
            if directory not in held.mounted:
                over -= size_of(directory, kept)
                remove_tree(directory)
        evicted.append(digest)
    return evicted


def _remove_blob(store: "NodeStore", digest: Digest) -> None:
    store.blobs.doubt(digest)
    store.blobs.path(digest).unlink(missing_ok=True)


def _remove_old(path: Path, grace: float) -> None:
    if _old(path, grace):
        path.unlink(missing_ok=True)


def _old(path: Path, grace: float) -> bool:
    """Say whether a file was changed longer ago than that; one from the future, by a clock that was wrong, was too."""
    try:
        return abs(time.time() - path.stat().st_mtime) >= grace
    except FileNotFoundError:
        return False


def _being_written(partial: Path) -> bool:
    """Say whether somebody holds the lock of a blob on its way."""
    try:
        handle = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(handle)


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder, as it is now; nothing when there is none."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - all at once: entries are removed meanwhile
    except FileNotFoundError:
        return
    for name in names:
        yield folder / name
