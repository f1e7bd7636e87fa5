"""Verified bytes on disk: blobs by digest, and model directories made of hard links to them.

::

    <root>/blobs/sha256/<hex>            a whole blob whose sha256 is its name; read-only
    <root>/blobs/sha256/<hex>.partial    the beginning of one; whoever writes it holds its lock
    <root>/models/<manifest hex>/…       files of one artifact, hard links to blobs

Promises
- A file under its final name was hashed whole before it was given that name; a crash at any instruction leaves either no
  such file or the right one, and leftovers are harmless: they are resumed or overwritten.
- One writer a blob, whoever asks, in this process or another (``flock``; the kernel lets go of it when a process dies).
- Never a byte beyond the size the descriptor says. A full disk is an answer (``DiskFull``), and what was written stays
  for the next try.

Leaves to others: where bytes come from (``transfer``), what may be believed (``trust``).
"""

import asyncio
import errno
import fcntl
import os
import stat
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from edgemodel.artifact.digest import Digest, Hasher
from edgemodel.artifact.manifest import Descriptor
from edgemodel.errors import Refused, Transient

READ_BYTES = 1 << 20
_LOCK_POLL = 0.05  # seconds; flock cannot be awaited
_BLOB_MODE = 0o444


class Store:
    """Blobs under one root directory.

    Args:
        root: the directory; made when missing.
        durable: flush to disk before a file gets its final name. Off only where every start hashes everything anew.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self.durable = durable
        self._blobs = root / "blobs" / "sha256"

    def path(self, digest: Digest) -> Path:
        """Return where a blob is, or would be."""
        return self._blobs / digest.hex

    def partial(self, digest: Digest) -> Path:
        """Return where the beginning of a blob is, or would be."""
        return _partial(self.path(digest))

    def model(self, manifest: Digest) -> Path:
        """Return the directory of an artifact, or where it would be."""
        return self.root / "models" / manifest.hex

    def intact(self, descriptor: Descriptor) -> bool:
        """Say whether a blob is here with the right bytes; one with wrong bytes is removed. Reads it whole: blocks."""
        path = self.path(descriptor.digest)
        try:
            before = path.stat()
            hasher = hash_file(path)
            if stat.S_IMODE(before.st_mode) != _BLOB_MODE:
                path.chmod(_BLOB_MODE)  # adopted, or a crash came between its name and its mode
        except FileNotFoundError:
            return False
        except OSError:
            # A bad sector under it, for one: what cannot be read is not here.
            path.unlink()
            return False
        if (hasher.digest(), hasher.size) == (descriptor.digest, descriptor.size):
            self.hashed(descriptor.digest, before)
            return True
        path.unlink(missing_ok=True)
        return False

    def hashed(self, digest: Digest, status: os.stat_result) -> None:
        """Learn that a blob was hashed whole and is right; for stores that remember it.

        Args:
            digest: of the blob.
            status: of the file, from before the first byte was read.
        """

    def adopt(self, path: Path, descriptor: Descriptor) -> None:
        """Give a file that may be this blob the blob's name too, unless that is taken; ``writing`` hashes it before use."""
        try:
            there = path.lstat()
            if stat.S_ISREG(there.st_mode) and there.st_size == descriptor.size:
                self._blobs.mkdir(parents=True, exist_ok=True)
                os.link(path, self.path(descriptor.digest), follow_symlinks=False)
        except OSError:
            return  # an optimisation: without it the blob is fetched

    @asynccontextmanager
    async def writing(self, descriptor: Descriptor) -> AsyncIterator["BlobWriter | None"]:
        """Hold a blob's lock and yield its writer; None when the blob is already here, whole.

        Waits as long as another writer holds the lock. What was written stays when the block is left without ``commit``.

        Raises:
            Transient: ``DiskFull``.
        """
        with disk_errors(self.root, descriptor.size):
            await asyncio.to_thread(self._blobs.mkdir, parents=True, exist_ok=True)
            handle = await self._lock(descriptor.digest)
        with BlobWriter(self, descriptor, handle) as writer:
            with disk_errors(self.root, descriptor.size):
                whole = await asyncio.to_thread(self.intact, descriptor)
                if whole:
                    writer.discard()
                else:
                    await asyncio.to_thread(writer.resume)
            yield None if whole else writer

    async def _lock(self, digest: Digest) -> int:
        partial = self.partial(digest)
        while True:
            handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                while True:
                    try:
                        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        await asyncio.sleep(_LOCK_POLL)
                # The one before us may have renamed or removed the file: then we hold a lock on what is now the finished
                # blob, or on nothing, and must not write there.
                if _same_file(handle, partial):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def link(self, descriptor: Descriptor, target: Path) -> None:
        """Give a blob one more name, ``target``; what was there is replaced in one step.

        Raises:
            Transient: ``DiskFull``.
        """
        with disk_errors(self.root, 0):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not beside the target: whatever name it had there, the artifact may have a file of that name.
            temporary = self._blobs / f"{descriptor.digest.hex}.{uuid.uuid4().hex}.link"
            os.link(self.path(descriptor.digest), temporary)
            temporary.replace(target)
            # rename(2) does nothing when both names are the same file already.
            temporary.unlink(missing_ok=True)


class BlobWriter:
    """Writes one blob; made by ``Store.writing``. Its methods block: call them in a thread.

    A cancelled caller leaves its thread running; the file is closed only when that thread is through with it, as its
    number could by then belong to another file.
    """

    def __init__(self, store: Store, descriptor: Descriptor, handle: int) -> None:
        self._store = store
        self._descriptor = descriptor
        self._handle = handle
        self._hasher = Hasher()
        self._path = store.path(descriptor.digest)
        self._busy = threading.Lock()
        self._closing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        with self._busy:
            os.close(self._handle)

    @contextmanager
    def _using(self) -> Iterator[None]:
        with self._busy:
            if self._closing:
                raise RuntimeError(f"the writer of {self._descriptor.digest} is closed")
            yield

    @property
    def offset(self) -> int:
        """How many bytes are here already."""
        return self._hasher.size

    def resume(self) -> None:
        """Hash what an earlier writer left, and go on behind it.

        Raises:
            Transient: ``DiskFull`` when there is no room for the rest.
        """
        with self._using():
            if os.fstat(self._handle).st_size > self._descriptor.size:
                self._truncate()
            while not self._closing and (piece := os.read(self._handle, READ_BYTES)):
                self._hasher.update(piece)
        missing = self._descriptor.size - self.offset
        free = free_bytes(self._store.root)
        if missing > free:
            raise disk_full(self._store.root, missing, free)

    def restart(self) -> None:
        """Throw away what is here and begin anew."""
        with self._using():
            self._truncate()

    def _truncate(self) -> None:
        os.ftruncate(self._handle, 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        self._hasher = Hasher()

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Append.

        Raises:
            Refused: ``DigestMismatch`` when it would grow beyond the descriptor's size; nothing of the piece is written.
            Transient: ``DiskFull``.
        """
        if self.offset + len(piece) > self._descriptor.size:
            raise Refused(
                "DigestMismatch",
                f"more bytes came for {self._descriptor.digest} than the {self._descriptor.size} its descriptor says",
            )
        with self._using(), disk_errors(self._store.root, self._descriptor.size - self.offset):
            rest = memoryview(piece)
            while rest:
                written = os.write(self._handle, rest)
                # Hashed as far as written, so that offset and hash agree whatever happens next.
                self._hasher.update(rest[:written])
                rest = rest[written:]

    def commit(self) -> Path:
        """Check size and digest, and give the blob its name.

        Raises:
            Refused: ``DigestMismatch``; the bytes are thrown away.
            Transient: ``DiskFull``.
        """
        found = (self._hasher.digest(), self._hasher.size)
        if found != (self._descriptor.digest, self._descriptor.size):
            self.restart()
            raise Refused(
                "DigestMismatch",
                f"expected {self._descriptor.digest} of {self._descriptor.size} bytes, found {found[0]} of {found[1]} "
                "bytes; thrown away. The registry, or something on the way, changed the content",
            )
        with self._using(), disk_errors(self._store.root, 0):
            if self._store.durable:
                os.fsync(self._handle)
            _partial(self._path).replace(self._path)
            # Not before: a partial file that is read-only could never be opened again by who is not root.
            os.fchmod(self._handle, _BLOB_MODE)
            if self._store.durable:
                sync_directory(self._path.parent)
            self._store.hashed(self._descriptor.digest, os.fstat(self._handle))
        return self._path

    def discard(self) -> None:
        """Remove the partial file."""
        _partial(self._path).unlink(missing_ok=True)


def hash_file(path: Path) -> Hasher:
    """Return digest and size of a file's content."""
    hasher = Hasher()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            hasher.update(piece)
    return hasher


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_bytes(path: Path) -> int:
    """Return how many bytes this process may still write where ``path`` is, or would be."""
    while not path.exists() and path != path.parent:
        path = path.parent  # a disk that is full can lack room for the folder itself
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


@contextmanager
def disk_errors(root: Path, needed: int) -> Iterator[None]:
    """Turn a full or failing disk into ``Transient`` ``DiskFull`` or ``TransferFailed``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(root, needed, free_bytes(root)) from None
        raise Transient(
            "TransferFailed",
            f"cannot write below {root}: {error.strerror or error}; check the volume and its permissions",
        ) from error


def disk_full(root: Path, needed: int, free: int) -> Transient:
    """Say how much room is missing."""
    return Transient(
        "DiskFull",
        f"{needed} more bytes are needed below {root}, {free} are free; make room or a larger volume",
    )


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _same_file(handle: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle), there)
