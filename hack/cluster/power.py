"""The power switch of a node: everything of it is killed at once, and of its disks only what was on them is left.

What a machine loses in a power cut is lost: processes, mounts, its network, and what containerd and runc keep in /run.
The kubelet's and the store's folders stay as they are. (The page cache stays too, so this doesn't show a missing fsync.)
"""

import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from cluster import host, network, processes, view
from cluster.layout import ClusterError, Node

_SHIM = "containerd-shim-runc-v2"


def off(node: Node) -> None:
    """Cut the node's power; `nodes.start_containerd` and `nodes.start_kubelet` bring it back."""
    processes.kill(node.cluster, node.processes)
    kill_all(node)
    network.unplug(node)
    view.drop(node)
    for volatile in ("containerd-state", "runc"):
        shutil.rmtree(node.directory / volatile, ignore_errors=True)
    node.containerd_socket.unlink(missing_ok=True)
    deadline = time.monotonic() + 5
    while host.remove_cgroup(node.cgroup) and time.monotonic() < deadline:
        time.sleep(0.05)


def kill_all(node: Node) -> None:
    """Kill what runs on a node besides its three components: shims, pods, and whatever these had just started."""
    _kill_shims(node)
    _kill_pods(node)


def _kill_pods(node: Node) -> None:
    deadline = time.monotonic() + 10
    while pids := host.cgroup_processes(node.cgroup) + view.processes(node):
        processes.kill_pids(pids)
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {pids} of node {node.name} don't die, probably waiting for a disk")
        time.sleep(0.05)


def _kill_shims(node: Node) -> None:
    """Kill this node's shims, known by the socket of the runtime they were started for, and their sockets."""
    socket = str(node.containerd_socket)
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            arguments = path.read_bytes().split(b"\0")
            if arguments[0].endswith(_SHIM.encode()) and socket.encode() in arguments:
                pids.append(int(path.parent.name))
    processes.kill_pids(pids)
    for path in node.directory.glob("containerd-state/io.containerd.runtime.v2.task/*/*/address"):
        address = path.read_text().removeprefix("unix://")
        # The shim's socket is outside every folder that we choose (containerd 1.6: /run/containerd/s/<hash>).
        if re.fullmatch(r"/run/containerd/s/[0-9a-f]{64}", address):
            Path(address).unlink(missing_ok=True)
