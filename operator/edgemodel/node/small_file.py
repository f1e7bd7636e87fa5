"""Small files of the node's own store: written in one step, read up to a cap.

Promises: under its name there is the old content or the new, whole, whenever the process dies; readable by nobody else.
"""

import os
import uuid
from pathlib import Path

from edgemodel.artifact.store import disk_errors, sync_directory

MAX_BYTES = 32 << 20
"""Longest file that is read: manifest and signatures of one artifact, in base64, with room to spare."""
SUFFIX = ".new"
"""Of a file on its way; only a crash leaves one."""


def write_small(path: Path, content: bytes, *, durable: bool) -> None:
    """Give a file this content.

    Args:
        path: its folder is made when missing.
        content: the whole of it.
        durable: flush it, and its name, to disk.

    Raises:
        Transient: ``DiskFull``, ``TransferFailed``.
    """
    with disk_errors(path.parent, len(content)):
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            if durable:
                sync_directory(path.parent.parent)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{SUFFIX}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            if durable:
                os.fsync(handle)
        except OSError:
            temporary.unlink(missing_ok=True)  # a disk that is full needs the room
            raise
        finally:
            os.close(handle)
        temporary.replace(path)
        if durable:
            sync_directory(path.parent)


def read_small(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        OSError: the disk's own.
        ValueError: it is longer than ``MAX_BYTES``.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is longer than {MAX_BYTES} bytes")
    return content
