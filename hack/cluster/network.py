"""The cluster's network on this machine: a bridge, a cable to each node's namespace, routes to its pods.

Everything stays on this machine: the bridge has no uplink, the machine is not made to forward, nodes have no
default route. So a pod reaches pods, Services, nodes and the machine's own address on the bridge (API server,
registry), and nothing else; a packet for anywhere else is refused at once, not lost. From the machine, pod and
Service addresses work as they are: Services by way of node 1's proxy rules.

No packet filter rule is made outside the nodes' namespaces. Every step looks first, so it may be repeated.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster import host
from cluster.layout import ClusterError, Layout, Node


def ensure_bridge(layout: Layout) -> None:
    """Make the bridge and give it the machine's address in the cluster.

    Raises:
        ClusterError: The bridge, or the address, is there already and someone else's.
    """
    owner = _owner(layout.bridge)
    if owner is None:
        _refuse_foreign_address(layout)
        _ip("link", "add", layout.bridge, "type", "bridge")
        _ip("link", "set", layout.bridge, "alias", str(layout.directory))
    elif owner != str(layout.directory):
        raise ClusterError(
            f"link {layout.bridge} belongs to {owner or 'someone else'}; remove it "
            f"(`EDGEMODEL_CLUSTER_DIR=… cluster down` if it is a cluster's), or give this cluster another --name"
        )
    _ip("address", "replace", f"{layout.host_address}/24", "dev", layout.bridge)
    _ip("link", "set", layout.bridge, "up")


def ensure_node(node: Node) -> None:
    """Make the node's network namespace, its cable to the bridge, and the machine's routes into it; join a cut one."""
    if not host.is_mounted(node.namespace):
        node.directory.mkdir(parents=True, exist_ok=True)
        node.namespace.touch()
        _run(["unshare", f"--net={node.namespace}", "true"])
    inside = ["nsenter", f"--net={node.namespace}", "--"]
    if not _exists("eth0", inside):
        if _exists(node.link):
            _ip("link", "delete", node.link)
        # It gets its final name inside: the machine has an eth0 of its own.
        _ip("link", "add", node.link, "type", "veth", "peer", "name", f"{node.link}p")
        _ip("link", "set", f"{node.link}p", "address", node.hardware_address)
        _ip("link", "set", f"{node.link}p", "netns", str(node.namespace))
        _ip("link", "set", f"{node.link}p", "name", "eth0", inside=inside)
    _ip("link", "set", node.link, "master", node.cluster.bridge)
    _ip("link", "set", node.link, "up")
    _ip("link", "set", "lo", "up", inside=inside)
    _ip("address", "replace", f"{node.address}/24", "dev", "eth0", inside=inside)
    _ip("link", "set", "eth0", "up", inside=inside)
    # A process of the node itself needs some route to a Service before its address can be translated.
    _ip("route", "replace", node.cluster.service_range, "via", node.cluster.host_address, inside=inside)
    _ip("route", "replace", node.pod_range, "via", node.address)
    switches = "net/ipv4/ip_forward net/bridge/bridge-nf-call-iptables"
    _run([*inside, "sh", "-ec", f"for s in {switches}; do echo 1 >/proc/sys/$s; done"])
    rate = _rate_file(node)
    if rate.exists():
        _limit(node, rate.read_text())


def cut(node: Node) -> None:
    """Pull the node's cable: it reaches nothing outside itself, and nothing reaches it."""
    _ip("link", "set", node.link, "down")


def join(node: Node) -> None:
    """Plug the cable in again."""
    _ip("link", "set", node.link, "up")


def is_cut(node: Node) -> bool:
    result = subprocess.run(["ip", "-json", "link", "show", node.link], check=False, capture_output=True)
    return result.returncode == 0 and "UP" not in json.loads(result.stdout)[0]["flags"]


def throttle(node: Node, rate: str | None) -> None:
    """Let no more than this through the node's cable, in each direction; None takes the limit away.

    Args:
        node: Whose cable. The limit outlives a reboot of the node.
        rate: As tc(8) writes it: 10mbit, 500kbit.
    """
    if rate is None:
        _rate_file(node).unlink(missing_ok=True)
        for inside in ([], ["nsenter", f"--net={node.namespace}", "--"]):
            device = "eth0" if inside else node.link
            # One without a limit has no qdisc that could be deleted.
            subprocess.run(
                [*inside, "tc", "qdisc", "del", "dev", device, "root"], check=False, capture_output=True
            )
        return
    _limit(node, rate)
    _rate_file(node).write_text(rate)


def unplug(node: Node) -> None:
    """Take the cable and the namespace away, with everything that was set in it; `ensure_node` makes them anew."""
    subprocess.run(["ip", "link", "delete", node.link], check=False, capture_output=True)
    while host.is_mounted(node.namespace):
        _run(["umount", str(node.namespace)])


def ensure_routes(layout: Layout, nodes: Sequence[Node]) -> None:
    """Route pods of every node from every other, and Services from the machine."""
    for node in nodes:
        inside = ["nsenter", f"--net={node.namespace}", "--"]
        for other in nodes:
            if other != node:
                _ip("route", "replace", other.pod_range, "via", other.address, inside=inside)
    if nodes:
        _ip("route", "replace", layout.service_range, "via", nodes[0].address)


def delete_bridge(layout: Layout) -> None:
    """Remove the bridge, and with it the machine's routes; the cables go with their namespaces."""
    if _owner(layout.bridge) != str(layout.directory):
        return
    result = subprocess.run(["ip", "-json", "link", "show"], capture_output=True, text=True, check=True)
    cables = [link["ifname"] for link in json.loads(result.stdout) if link.get("master") == layout.bridge]
    for name in [*cables, layout.bridge]:
        # A namespace's end of a cable disappears some milliseconds after the namespace: it may be gone by now.
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def _rate_file(node: Node) -> Path:
    return node.directory / "rate"


def _limit(node: Node, rate: str) -> None:
    # A burst of 64 KiB is one segment of the largest size that a veth carries; a smaller one would drop it for ever.
    bucket = ["root", "tbf", "rate", rate, "burst", "64kb", "latency", "100ms"]
    _run(["tc", "qdisc", "replace", "dev", node.link, *bucket])
    _run(["nsenter", f"--net={node.namespace}", "--", "tc", "qdisc", "replace", "dev", "eth0", *bucket])


def _owner(bridge: str) -> str | None:
    """The folder of the cluster that made this bridge: its alias; empty if it has none, None if it is not there."""
    result = subprocess.run(
        ["ip", "-json", "link", "show", bridge], check=False, capture_output=True, text=True
    )
    return str(json.loads(result.stdout)[0].get("ifalias", "")) if result.returncode == 0 else None


def _refuse_foreign_address(layout: Layout) -> None:
    """Leave alone a network that someone else has at the addresses we would take."""
    result = subprocess.run(
        ["ip", "-json", "route", "get", layout.host_address], check=False, capture_output=True, text=True
    )
    routes = json.loads(result.stdout or "[]") if result.returncode == 0 else []
    if routes and routes[0].get("type") == "local":
        raise ClusterError(
            f"{layout.host_address} is an address of this machine already, on {routes[0].get('dev')}; "
            f"the cluster needs 10.99.{layout.index}.0/24, {layout.pod_range} and {layout.service_range} to itself"
        )


def _exists(link: str, inside: Sequence[str] = ()) -> bool:
    return (
        subprocess.run([*inside, "ip", "link", "show", link], check=False, capture_output=True).returncode
        == 0
    )


def _ip(*arguments: str, inside: Sequence[str] = ()) -> None:
    _run([*inside, "ip", *arguments])


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {result.stderr.strip()}")
