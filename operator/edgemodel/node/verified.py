"""Remembers which files were hashed and found right since the node started, so that nobody hashes them a second time.

::

    <store>/verified/<blob hex>      {"boot": …, "file": [inode, size, mtime in ns]}

Promises
- A record counts only for the very file it was made of (inode, length, time of last change) and only until the next boot:
  after a power cut nobody knows what the disk kept, and while the node was off anybody may have written to it.
- A record that is missing, torn or not understood is no record: the file is hashed again. So none is flushed to disk.
- Taking a record away takes effect at once, in one step, for everybody who asks ``holds``.

What it cannot see: bytes that rot under an unchanged inode. ``recheck`` looks for those.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor
from edgemodel.artifact.store import Store
from edgemodel.node.small_file import read_small, write_small

FOLDER = "verified"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Mark = tuple[int, int, int]
"""Inode, length in bytes, time of last change in nanoseconds: another file, or a changed one, has another."""


def mark(status: os.stat_result) -> Mark:
    """Return what tells a file from any other, and from itself after a change."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def this_boot() -> str:
    """Return the kernel's name for the time since the node started; the same in every container."""
    return BOOT_ID.read_text(encoding="ascii").strip()


class VerifiedBlobs(Store):
    """A store that remembers which of its blobs were hashed since the node started.

    Args:
        root: see ``Store``.
        boot: what names the time since the node started.
    """

    def __init__(self, root: Path, boot: str) -> None:
        super().__init__(root)
        self.boot = boot
        self._records = root / FOLDER

    def holds(self, digest: Digest) -> os.stat_result | None:
        """Return the status of a blob that is here and was hashed since the node started; None of any other. Cheap."""
        try:
            status = self.path(digest).stat()
            record = json.loads(read_small(self._record(digest)))
            known = record["boot"] == self.boot and record["file"] == list(mark(status))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return status if known else None

    def intact(self, descriptor: Descriptor) -> bool:
        """See ``Store.intact``; a blob that was hashed since the node started is not read again."""
        status = self.holds(descriptor.digest)
        if status is not None and status.st_size == descriptor.size:
            return True
        return super().intact(descriptor)

    def hashed(self, digest: Digest, status: os.stat_result) -> None:
        """Remember that a blob is right."""
        document = {"boot": self.boot, "file": mark(status)}
        write_small(self._record(digest), json.dumps(document).encode(), durable=False)

    def known(self, digest: Digest) -> bool:
        """Say whether a blob was ever right and is not in doubt, whatever became of it since."""
        return self._record(digest).exists()

    def doubt(self, digest: Digest) -> None:
        """Forget that a blob is right: in one step it, and every model with it, is no longer given to anybody."""
        self._record(digest).unlink(missing_ok=True)

    def recorded(self) -> Iterator[Path]:
        """Yield the records' files, of whatever age."""
        if self._records.is_dir():
            yield from self._records.iterdir()

    def _record(self, digest: Digest) -> Path:
        return self._records / digest.hex
