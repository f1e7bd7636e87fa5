"""Read-only bind mounts by mount(2): made whole or not at all, and known from /proc/self/mountinfo alone, never from memory.

A bind mount takes the flags of what it copies and gets others only by a second call, which reaches this mount namespace but
not the copies that propagation has made in others: the node would keep a writable one. So flags are set before the mount
is attached anywhere: on a detached tree (open_tree(2), mount_setattr(2), Linux 5.12), or, on older kernels, on a mount at a
private place, of which the target is then a bind mount. Nobody ever sees the target writable; a crash leaves it unmounted.
"""

import ctypes
import errno
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgemodel.errors import Transient

log = logging.getLogger(__name__)

FLAGS = frozenset({"ro", "nosuid", "nodev", "noexec"})
"""Options of every mount of ours, as mountinfo writes them."""

# linux/mount.h, linux/fcntl.h; the numbers of these three system calls are the same on every architecture but alpha.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    1 << 18,
)
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_ESCAPE = re.compile(r"\\([0-7]{3})")
_BUSY_SECONDS = 2.0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class MountFailed(Transient):
    """The kernel refused; a later try may succeed."""

    def __init__(self, message: str) -> None:
        super().__init__("MountFailed", message)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc_pid_mountinfo(5))."""

    device: str
    root: str
    """Path inside its file system of what is mounted; ends with ``//deleted`` once that is gone."""
    point: str
    options: frozenset[str]


def table() -> list[Mount]:
    """Return all mounts of this process's namespace, the lower of two at one place first."""
    return list(_lines(Path("/proc/self/mountinfo").read_bytes()))


def _lines(text: bytes) -> Iterator[Mount]:
    for line in text.splitlines():
        _, _, device, root, point, options, *_ = os.fsdecode(line).split(" ")
        yield Mount(device, _unescaped(root), _unescaped(point), frozenset(options.split(",")))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


def origin(path: Path, mounts: list[Mount]) -> tuple[str, str]:
    """Return the device and the path inside its file system at which ``path`` lies; that is how mounts of it look.

    Raises:
        MountFailed: no mount covers it.
    """
    covering = [one for one in mounts if path.is_relative_to(one.point)]
    if not covering:
        raise MountFailed(
            f"{path}: expected it on a mount of this namespace, found none in /proc/self/mountinfo"
        )
    longest = max(len(one.point) for one in covering)
    top = [one for one in covering if len(one.point) == longest][-1]
    inside = path.relative_to(top.point)
    return top.device, str(Path(top.root) / inside)


def sources(models: Path, below: Path, mounts: list[Mount]) -> set[Path]:
    """Return the directories directly under ``models`` that are mounted somewhere below ``below``."""
    device, root = origin(models, mounts)
    return {
        models / Path(one.root).name
        for one in mounts
        if one.device == device
        and str(Path(one.root).parent) == root
        and Path(one.point).is_relative_to(below)
    }


def bind(source: Path, target: Path, *, detached: bool = True) -> bool:
    """Mount ``source`` at the directory ``target``, read-only, nosuid, nodev, noexec; False when it was so already.

    Whatever else is mounted there, a mount of ours with too few flags included, is taken away first.

    Args:
        source: a directory.
        target: an existing directory; no part of it a link (``target.check``).
        detached: try the way of Linux 5.12 first.

    Raises:
        MountFailed: with the kernel's reason.
    """
    if _stands(source, target):
        return False
    unmount(target)
    if not (detached and _attach_detached(source, target)):
        _attach_staged(source, target)
    if not _stands(source, target):
        unmount(target)
        raise MountFailed(
            f"{target}: expected {source} mounted with {','.join(sorted(FLAGS))}, found another state after mounting; "
            "the model was removed or something else mounts there"
        )
    return True


def _stands(source: Path, target: Path) -> bool:
    mounts = table()
    here = [one for one in mounts if one.point == str(target)]
    return (
        len(here) == 1
        and (here[0].device, here[0].root) == origin(source, mounts)
        and here[0].options >= FLAGS
    )


def unmount(target: Path) -> bool:
    """Take away everything mounted at ``target``; False when nothing was.

    Blocks for up to two seconds while it is in use. Then, as a last resort, it is detached: gone from the tree, and let go
    by the kernel when its last user ends.

    Raises:
        MountFailed: with the kernel's reason.
    """
    count = len([one for one in table() if one.point == str(target)])
    for _ in range(count):
        ends = time.monotonic() + _BUSY_SECONDS
        while (code := _umount(target, _UMOUNT_NOFOLLOW)) == errno.EBUSY and time.monotonic() < ends:
            time.sleep(0.1)
        if code == errno.EBUSY:
            log.warning("%s is in use after %g s: detached", target, _BUSY_SECONDS)
            code = _umount(target, _UMOUNT_NOFOLLOW | _MNT_DETACH)
        if code and code != errno.EINVAL:  # EINVAL: not a mount point (any more)
            raise MountFailed(f"umount {target}: {os.strerror(code)}")
    return count > 0


def _attach_detached(source: Path, target: Path) -> bool:
    """Return False when the kernel is too old or a seccomp profile forbids the calls."""
    tree = _libc.syscall(
        _OPEN_TREE, _AT_FDCWD, os.fsencode(source), ctypes.c_uint(_OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    )
    if tree < 0:
        if ctypes.get_errno() in {errno.ENOSYS, errno.EPERM}:
            return False
        raise MountFailed(f"open_tree {source}: {os.strerror(ctypes.get_errno())}")
    try:
        wanted = _MountAttributes(attr_set=_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV | _ATTR_NOEXEC)
        size = ctypes.c_size_t(ctypes.sizeof(wanted))
        if _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), size):
            if ctypes.get_errno() in {errno.ENOSYS, errno.EPERM}:
                return False
            raise MountFailed(f"mount_setattr {source}: {os.strerror(ctypes.get_errno())}")
        flags = _MOVE_MOUNT_F_EMPTY_PATH
        if _libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)):
            raise MountFailed(f"move_mount {source} to {target}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(tree)
    return True


def _attach_staged(source: Path, target: Path) -> None:
    # The place is a private mount of its own, so that what is mounted on it propagates nowhere. It is taken away by rmdir,
    # which, unlike removing a tree, could never reach into a model.
    place = Path(tempfile.mkdtemp(prefix="edgemodel-mount-"))
    staged = place / "model"
    staged.mkdir()
    try:
        _mount(place, place, _MS_BIND)
        try:
            _mount(None, place, _MS_PRIVATE)
            _mount(source, staged, _MS_BIND)
            flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
            _mount(None, staged, flags)
            _mount(staged, target, _MS_BIND)
        finally:
            _umount(place, _UMOUNT_NOFOLLOW | _MNT_DETACH)
    finally:
        staged.rmdir()
        place.rmdir()


def _mount(source: Path | None, target: Path, flags: int) -> None:
    copied = None if source is None else os.fsencode(source)
    if _libc.mount(copied, os.fsencode(target), None, ctypes.c_ulong(flags), None):
        code = ctypes.get_errno()
        hint = "; the agent's container must be privileged" if code == errno.EPERM else ""
        raise MountFailed(f"mount {source or ''} on {target}: {os.strerror(code)}{hint}")


def _umount(target: Path, flags: int) -> int:
    """Return 0 or an errno."""
    return ctypes.get_errno() if _libc.umount2(os.fsencode(target), flags) else 0
