"""What a cluster shares with the machine, and so has to find, remember and give back: mounts, cgroups, sysctls."""

import json
import os
from pathlib import Path

from cluster.layout import clusters_dir

# What kubelets set for the whole machine, not for their own namespace.
_SYSCTLS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
_BEFORE = "machine-before.json"


def mounts_under(directory: Path) -> list[str]:
    """Mount points at or below a folder, in the order in which they were mounted."""
    prefix = str(directory)
    # mountinfo writes a blank as \040 (proc(5)); other escapes don't occur in our paths.
    points = [
        line.split()[4].replace("\\040", " ")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    return [point for point in points if point == prefix or point.startswith(prefix + "/")]


def is_mounted(path: Path) -> bool:
    return str(path) in mounts_under(path)


def cgroup_hierarchies() -> list[Path]:
    """The roots below which a node needs its own cgroup: the one of v2, or each controller's of v1."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [
        path for path in sorted(root.iterdir()) if (path / "cgroup.procs").exists() and not path.is_symlink()
    ]


def cgroup_processes(name: str) -> list[int]:
    """Every process in a cgroup of this name or below it, in any hierarchy."""
    pids: set[int] = set()
    for hierarchy in cgroup_hierarchies():
        for path in (hierarchy / name).rglob("cgroup.procs"):
            try:
                pids.update(int(line) for line in path.read_text().split())
            except OSError:  # the cgroup went away meanwhile, and its processes with it
                continue
    return sorted(pids)


def remove_cgroup(name: str) -> list[Path]:
    """Remove an empty cgroup and those below it; returns the folders that are still in use."""
    left: list[Path] = []
    for hierarchy in cgroup_hierarchies():
        top = hierarchy / name
        if not top.exists():
            continue
        for directory, _, _ in os.walk(top, topdown=False):
            try:
                Path(directory).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                left.append(Path(directory))
    return left


def remember_sysctls() -> None:
    """Note the machine's settings before the first cluster changes them."""
    path = clusters_dir() / _BEFORE
    if not path.exists():
        path.write_text(json.dumps({name: Path("/proc/sys", name).read_text().strip() for name in _SYSCTLS}))


def restore_sysctls() -> None:
    """Give the machine its settings back, after the last cluster is gone."""
    path = clusters_dir() / _BEFORE
    if path.exists():
        for name, value in json.loads(path.read_text()).items():
            if name in _SYSCTLS:
                Path("/proc/sys", name).write_text(value)
        path.unlink()
