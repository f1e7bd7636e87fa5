"""What the kernel lets this process use: CPUs and memory, by its cgroup (v2, then v1) and affinity mask.

Promises a usable number for CPUs on any Linux, and None for memory where no limit is set. Reads files only.
Source of the formats: Linux Documentation/admin-guide/cgroup-v2.rst, `cpu.max` and `memory.max`.
"""

import math
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
# cgroup v1 writes "no limit" as the largest page-aligned signed 64-bit number.
_V1_UNLIMITED = 1 << 60


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _quota(root: Path) -> float | None:
    """CPUs allowed by the cgroup's bandwidth limit, or None when there is none."""
    if text := _read(root / "cpu.max"):
        quota, _, period = text.partition(" ")
    else:
        quota = _read(root / "cpu" / "cpu.cfs_quota_us") or "max"
        period = _read(root / "cpu" / "cpu.cfs_period_us") or "100000"
    try:
        allowed = int(quota) / int(period or "100000")
    except (ValueError, ZeroDivisionError):
        return None
    return allowed if allowed > 0 else None


def cpu_limit(root: Path = _ROOT) -> int:
    """Number of CPUs this process may keep busy, at least 1.

    A fraction is rounded up: half a CPU is one thread that is throttled, never none.
    """
    available = len(os.sched_getaffinity(0))
    quota = _quota(root)
    return available if quota is None else max(1, min(available, math.ceil(quota)))


def whole_cpus(root: Path = _ROOT) -> int:
    """Number of CPUs that may be kept busy all the time; 0 where it is a part of one."""
    available = len(os.sched_getaffinity(0))
    quota = _quota(root)
    return available if quota is None else min(available, math.floor(quota))


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes of memory the cgroup allows, or None when it sets no limit."""
    text = _read(root / "memory.max") or _read(root / "memory" / "memory.limit_in_bytes")
    if not text or not text.isdigit():
        return None
    limit = int(text)
    return None if limit >= _V1_UNLIMITED else limit


def memory_bytes(root: Path = _ROOT) -> int:
    """Bytes of memory there are for this process: what the cgroup allows, or the machine has."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(memory_limit(root) or installed, installed)


def share_of_memory(most: int, root: Path = _ROOT) -> int:
    """Return the bytes that the inputs of all requests may take together: `most`, or a quarter of the cgroup's limit."""
    limit = memory_limit(root)
    return most if limit is None else max(1, min(most, limit // 4))
