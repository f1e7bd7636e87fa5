"""What a node sees of the machine's files: everything, except that a few folders are its own, as on a machine of its own.

Each node has a mount namespace. In it /var/lib/kubelet and /var/lib/edgemodel are the node's, so that pods with
hostPath volumes of these names find their node's and no other's; the boot id is new whenever the namespace is. Every
mount in it is shared, as on a machine with systemd, so that a privileged pod may mount something for the kubelet and
other pods to see; none is shared with the machine, and the machine sees none of the node's.

The namespace lives as long as the file it is mounted on or a process in it; so dropping it is what a power cut does
to mounts.
"""

import os
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

from cluster import host
from cluster.layout import ClusterError, Node, clusters_dir

KUBELET = Path("/var/lib/kubelet")
STORE = Path("/var/lib/edgemodel")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

# The namespace begins as a copy of the machine's mounts. Those of clusters are let go, or they would keep alive in
# here what a `down` of another cluster unmounts; this node's store is bound to its place first.
_SETUP = """\
mount --bind "$kubelet_here" "$kubelet"
mount --bind "$store_here" "$store"
mount --bind "$boot_id_here" "$boot_id"
awk -v prefix="$clusters/" 'index($5, prefix) == 1 { print $5 }' /proc/self/mountinfo | tac |
    while IFS= read -r point; do umount --lazy "$point"; done
mount --make-rshared /
touch "$finished"
"""


def ensure(node: Node, store_size: str | None) -> None:
    """Make the node's own folders and its view of the machine, unless they are there.

    Args:
        node: The node.
        store_size: Size of the file system that the store is on, as `truncate --size` reads it; None for no limit.

    Raises:
        ClusterError: A mount failed, or the size is none.
    """
    node.kubelet_directory.mkdir(parents=True, exist_ok=True)
    node.store_directory.mkdir(exist_ok=True)
    if store_size:
        _ensure_store(node, store_size)
    finished = node.view.with_name("finished")
    if host.is_mounted(node.view):
        if finished.exists():
            return
        drop(node)  # one whose making was interrupted
    _ensure_private(node.view.parent)
    finished.unlink(missing_ok=True)
    node.view.touch()
    for place in (KUBELET, STORE):
        place.mkdir(parents=True, exist_ok=True)  # teardown.give_back_machine removes them
    boot_id = node.view.with_name("boot_id")
    boot_id.write_text(f"{uuid.uuid4()}\n")
    variables = {
        "kubelet_here": node.kubelet_directory,
        "kubelet": KUBELET,
        "store_here": node.store_directory,
        "store": STORE,
        "boot_id_here": boot_id,
        "boot_id": _BOOT_ID,
        "clusters": clusters_dir(),
        "finished": finished,
    }
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    _run(["unshare", f"--mount={node.view}", "--propagation=private", "sh", "-ec", _SETUP], environment)


def drop(node: Node) -> None:
    """Forget the view. Its mounts are gone with the last process in it."""
    while host.is_mounted(node.view):
        _run(["umount", str(node.view)])
    node.view.with_name("finished").unlink(missing_ok=True)


def processes(node: Node) -> list[int]:
    """Every process that has this view; not those of pods, which have views of their own."""
    if not host.is_mounted(node.view):
        return []
    ours = node.view.stat().st_ino
    found = []
    for path in Path("/proc").glob("[0-9]*/ns/mnt"):
        with suppress(OSError):
            if path.stat().st_ino == ours:
                found.append(int(path.parts[2]))
    return found


def _ensure_private(directory: Path) -> None:
    """The kernel mounts a mount namespace only where no other namespace would see it."""
    directory.mkdir(exist_ok=True)
    if not host.is_mounted(directory):
        _run(["mount", "--bind", str(directory), str(directory)])
    _run(["mount", "--make-private", str(directory)])


def _ensure_store(node: Node, size: str) -> None:
    if host.is_mounted(node.store_directory):
        return
    image = node.directory / "edgemodel.ext4"
    if not image.exists():
        temporary = image.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        _run(["truncate", f"--size={size}", str(temporary)])
        _run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(temporary)])
        temporary.replace(image)
    _run(["mount", "-o", "loop", str(image), str(node.store_directory)])


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command[:4])}` failed: {done.stderr.strip()[-500:]}")
