"""How much room the store takes, may take, and finds on the disk."""

import os
from dataclasses import dataclass
from pathlib import Path

DISK_SHARE = 0.8
"""Of the whole disk that may be full before the store, without a budget of its own, gives way. The kubelet removes images
from 85 % on and evicts pods at 85 or 90 %."""


@dataclass(frozen=True, slots=True)
class Usage:
    """All in bytes."""

    used: int
    """Length of all files, each once however many names it has."""
    budget: int
    """What the store may take."""
    free: int
    """What may still be written on the disk."""

    def fits(self, more: int) -> bool:
        """Say whether so many more bytes have room."""
        return self.used + more <= self.budget and more <= self.free


def measure(root: Path, budget: int | None) -> Usage:
    """Measure a store.

    Args:
        root: of the store.
        budget: bytes; None for ``DISK_SHARE`` of the disk less what others have on it.
    """
    used = size_of(root, set())
    disk = os.statvfs(root)
    if budget is None:
        others = max((disk.f_blocks - disk.f_bfree) * disk.f_frsize - used, 0)
        budget = max(int(disk.f_blocks * disk.f_frsize * DISK_SHARE) - others, 0)
    return Usage(used, budget, disk.f_bavail * disk.f_frsize)


def size_of(folder: Path | str, seen: set[int]) -> int:
    """Return the length of all files below a folder whose inode is not in ``seen``, and put them there."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += size_of(entry.path, seen)
                elif entry.inode() not in seen:
                    seen.add(entry.inode())
                    total += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        pass  # others rename and remove meanwhile
    return total
