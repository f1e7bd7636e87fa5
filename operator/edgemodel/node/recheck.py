"""Looks for bytes that rotted on disk, or that somebody changed under an unchanged name, at a pace that nobody notices.

Promises
- What is hashed is what pods see: pages that are in memory because somebody uses them are read from there and stay there;
  pages that only this came to read leave again at once, so that a re-hash of everything pushes nothing else out.
- A blob whose bytes are wrong, or that cannot be read, is condemned before this returns: nothing new mounts it, the models
  made of it are taken down, and the next ``Transfers.bring`` makes new files. Pods that have the old ones mapped keep them
  until they are restarted: that is the operator's to do.

Leaves to others: how often, and what is said about it (the agent).
"""

import asyncio
import errno
import os
from pathlib import Path

from edgemodel.artifact import tar
from edgemodel.artifact.digest import Digest, Hasher
from edgemodel.artifact.manifest import Manifest, ModelFile, model_files
from edgemodel.errors import EdgeModelError
from edgemodel.node.limiter import Limiter
from edgemodel.node.store import NodeStore

PIECE = 1 << 20
"""Bytes read at a time; a whole number of pages."""


async def recheck(store: NodeStore, digest: Digest, *, bytes_per_second: float | None) -> list[Digest]:
    """Hash the files of one model again; return the blobs that are wrong, after they were condemned.

    Args:
        store: of this node.
        digest: the model's manifest.
        bytes_per_second: how fast to read; None for as fast as the disk gives.
    """
    examined = await asyncio.to_thread(store.examined, digest)
    if examined is None:
        return []
    limiter = Limiter(bytes_per_second)
    bad = []
    for file in model_files(Manifest.parse(examined.manifest_bytes)):
        blob = file.descriptor.digest
        if blob not in bad and not await _right(store, digest, file, limiter):
            bad.append(blob)
    if bad:
        await asyncio.to_thread(store.condemn, bad)
    return bad


async def _right(store: NodeStore, digest: Digest, file: ModelFile, limiter: Limiter) -> bool:
    blob = file.descriptor.digest
    path = store.blobs.path(blob)
    try:
        before = await asyncio.to_thread(path.stat)
    except FileNotFoundError:
        # Not here yet; unless it was, and somebody took it away.
        return not store.blobs.known(blob)
    try:
        found = await hash_gently(path, limiter)
        if (found.digest(), found.size) != (blob, file.descriptor.size):
            return False
        if file.packing != "raw":
            members = await asyncio.to_thread(tar.hashes, path, file)
            for directory in await asyncio.to_thread(store.directories, digest):
                for name, expected in members.items():
                    unpacked = await hash_gently(directory / name, limiter)
                    if unpacked.digest() != expected.digest():
                        return False
    except (OSError, EdgeModelError):
        return False
    if store.blobs.holds(blob) is None:
        store.blobs.hashed(blob, before)  # touched, not changed
    return True


async def hash_gently(path: Path, limiter: Limiter) -> Hasher:
    """Hash a file without changing what is in the page cache.

    Raises:
        OSError: the disk's own.
    """
    hasher = Hasher()
    handle = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # No reading ahead: those pages would look as if somebody used them.
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        buffer = memoryview(bytearray(PIECE))
        while True:
            await limiter.take(PIECE)
            piece = asyncio.ensure_future(asyncio.to_thread(_piece, handle, buffer, hasher))
            try:
                if not await asyncio.shield(piece):
                    return hasher
            finally:
                # Cancelled, the thread still reads: the number of the file must not be given to another one meanwhile.
                await asyncio.wait((piece,))
    finally:
        os.close(handle)


def _piece(handle: int, buffer: memoryview, hasher: Hasher) -> int:
    """Hash the next piece; return its length, 0 at the end."""
    start = hasher.size
    cached = _from_cache(handle, buffer, start)
    length = cached
    while length < len(buffer) and (more := os.preadv(handle, [buffer[length:]], start + length)):
        length += more
    hasher.update(buffer[:length])
    if cached < length:
        # Pages that a process has mapped stay all the same (mm/truncate.c, mapping_evict_folio).
        os.posix_fadvise(handle, start + cached, length - cached, os.POSIX_FADV_DONTNEED)
    return length


def _from_cache(handle: int, buffer: memoryview, start: int) -> int:
    """Read what is in memory already; return how many bytes that was."""
    try:
        return os.preadv(handle, [buffer], start, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
            return 0  # none of it, or a file system that cannot tell
        raise
