"""How much memory processes hold."""

from collections.abc import Iterable
from pathlib import Path


def resident(pids: Iterable[int]) -> float:
    """Return the sum of the resident set sizes of processes, in MB (10^6 bytes)."""
    total = 0
    for pid in pids:
        for line in (Path("/proc") / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total * 1024 / 1e6


def anonymous(pid: int) -> float:
    """Return the resident memory of a process that no file backs, in MB: what the kernel could only swap."""
    lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024 / 1e6


def proportional(pids: Iterable[int]) -> float:
    """Return the sum of the proportional set sizes, in MB: pages that several have count once in all."""
    total = 0
    for pid in pids:
        for line in (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total * 1024 / 1e6
