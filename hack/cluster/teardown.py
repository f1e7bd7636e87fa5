"""Takes a cluster away so that nothing of it is left: processes, mounts, namespaces, links, cgroups, files.

It works on whatever is there: a cluster that is half up, half dead or half torn down by an earlier attempt. Pods
are not drained, they are killed; whoever wants them to end well deletes them first.
"""

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from cluster import host, network, nodes, power, processes, view
from cluster.layout import ClusterError, Layout, Node, existing_clusters

_SHARED_DIRECTORIES = (
    "/run/containerd/s",
    "/run/containerd",
    "/var/log/containers",
    "/var/lib/cni/results",
    "/var/lib/cni",
    str(view.KUBELET),
    str(view.STORE),
)


def down(layout: Layout, node_count: int) -> None:
    """Remove a cluster.

    Raises:
        ClusterError: Something could not be removed; the text names it. The cluster's folder is then kept, so that
            `down` can be tried again.
    """
    members = nodes.all_of(layout, node_count)
    # All at once, and without asking: nothing of this cluster is needed again, and a kubelet or a runtime that
    # is still there would start again what is killed.
    processes.kill(layout, processes.names(layout))
    for node in members:
        power.kill_all(node)
    left = _unmount(layout)
    network.delete_bridge(layout)
    for node in members:
        left += [str(path) for path in _remove_cgroup(node)]
        _forget(node)
    if left:
        raise ClusterError(f"still in use, so not removed: {', '.join(left)}. `down` may be run again.")
    shutil.rmtree(layout.directory)


def give_back_machine() -> None:
    """Undo what the clusters did to the machine as a whole, once the last of them is gone."""
    if existing_clusters():
        return
    host.restore_sysctls()
    for directory in _SHARED_DIRECTORIES:
        with suppress(OSError):  # absent, or something of someone else's is in it
            Path(directory).rmdir()


def _unmount(layout: Layout) -> list[str]:
    for _ in range(3):
        points = host.mounts_under(layout.directory)
        for point in reversed(points):
            subprocess.run(["umount", point], check=False, capture_output=True)
        if not points:
            return []
        time.sleep(0.1)
    for point in reversed(host.mounts_under(layout.directory)):
        # A mount that someone still looks into: out of sight now, gone when they stop looking.
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    return host.mounts_under(layout.directory)


def _remove_cgroup(node: Node) -> list[Path]:
    """The kernel may take a moment to let go of a cgroup whose last process was killed."""
    deadline = time.monotonic() + 5
    while (left := host.remove_cgroup(node.cgroup)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _forget(node: Node) -> None:
    """Remove what the node left in places that can't be configured."""
    results = Path("/var/lib/cni/results")
    for path in results.glob(f"{node.cni_network}-*-eth0"):
        sandbox = path.name.removeprefix(f"{node.cni_network}-").removesuffix("-eth0")
        (results / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    prefix = str(node.directory) + "/"
    for path in Path("/var/log/containers").glob("*.log"):
        with suppress(OSError):
            if str(path.readlink()).startswith(prefix):
                path.unlink()
