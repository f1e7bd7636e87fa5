"""The command line of hack/cluster/cluster: reads arguments, holds the lock, prints what happens and how long it took."""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cluster import (
    api,
    binaries,
    control_plane,
    host,
    images,
    locks,
    network,
    nodes,
    pki,
    power,
    processes,
    teardown,
)
from cluster.layout import (
    DEFAULT_NAME,
    KUBERNETES_VERSION,
    MAX_NODES,
    NAME_PATTERN,
    ClusterError,
    Layout,
    Node,
    Settings,
    cache_dir,
    clusters_dir,
    existing_clusters,
    free_index,
    load_settings,
)

_CONTROL_PLANE = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "registry"]
_PROGRAMS = ["openssl", "ip", "nsenter", "docker-registry"]
_NODE_PROGRAMS = ["containerd", "ctr", "runc", "iptables", "conntrack", "awk"]


def main(arguments: Sequence[str]) -> int:
    """Run one command; 0 is success, 1 is "look at the message", 2 is wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        _require_sense(options.name)
        return int(options.run(options))
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted; `up` goes on from here, `down` removes what is there", file=sys.stderr)
        return 130


def _require_sense(name: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise ClusterError(f"'{name}' is no cluster name: expected {NAME_PATTERN.pattern}")
    if os.geteuid() != 0:
        raise ClusterError("a cluster makes network namespaces, mounts and cgroups: run this as root")


def _up(options: argparse.Namespace) -> int:
    timer = _Timer()
    with locks.cluster(options.name):
        with locks.machine():
            settings = _settle(options, load_settings(options.name))
            layout = Layout(options.name, settings.index)
            members = nodes.all_of(layout, settings.nodes)
            _require_programs(_PROGRAMS + (_NODE_PROGRAMS if members else []))
            settings.save(layout)
            layout.directory.chmod(0o711)
            host.remember_sysctls()
        binaries.ensure(binaries.MODULES if members else (binaries.KUBE,), timer.say)
        _start(layout, settings, timer)
    timer.say(f"{KUBERNETES_VERSION} is up after {timer.total():.1f} s; registry {layout.registry}")
    print(
        f'  export KUBECONFIG={layout.kubeconfig}   # or: eval "$({Path(sys.argv[0])} env --name {layout.name})"'
    )
    return 0


def _start(layout: Layout, settings: Settings, timer: "_Timer") -> None:
    """Start everything that doesn't run, each part as soon as what it can't start without is there."""
    members = nodes.all_of(layout, settings.nodes)
    with timer.step("certificates, bridge"):
        pki.ensure_cluster(layout)
        network.ensure_bridge(layout)
    with timer.step("etcd and API server ready"):
        control_plane.start_etcd(layout)
        control_plane.start_api_server(layout, audit=settings.audit)
        # Everything below is started while the API server is still busy starting.
        control_plane.start_registry(layout)
        for node in members:
            nodes.prepare(node)
            nodes.start_containerd(node, settings.store_size)
        network.ensure_routes(layout, members)
        control_plane.wait_for_api(layout)
    with timer.step("controllers at work"):
        control_plane.start_controllers(layout)
        with ThreadPoolExecutor(max_workers=max(1, len(members))) as pool:
            kubelets_started = list(pool.map(nodes.start_kubelet, members))
        if members:
            control_plane.start_dns(layout)
        api.apply(layout, control_plane.cluster_objects(layout))
        control_plane.wait_for_controllers(layout)
    for node, since in zip(members, kubelets_started, strict=True):
        with timer.step(f"node {node.name} Ready"):
            nodes.wait_until_ready(node, since)
    control_plane.require(layout, _components(layout, settings))


def _settle(options: argparse.Namespace, saved: Settings | None) -> Settings:
    """What this `up` is to bring about, given what an earlier one did."""
    asked = 0 if options.control_plane_only else options.nodes
    if saved is None:
        return Settings(
            index=free_index(options.name),
            nodes=1 if asked is None else asked,
            audit=options.audit,
            store_size=options.store_size,
        )
    if options.store_size not in (None, saved.store_size):
        raise ClusterError(
            f"the stores of cluster {options.name} have {saved.store_size or 'no limit'}, and can't be resized: "
            f"`down --name {options.name}` first, or give another --name"
        )
    if asked is not None and asked < saved.nodes:
        raise ClusterError(
            f"cluster {options.name} has {saved.nodes} nodes and can't be made smaller: "
            f"`down --name {options.name}` first, or give another --name"
        )
    count = saved.nodes if asked is None else asked
    return replace(saved, nodes=count, audit=saved.audit or options.audit)


def _down(options: argparse.Namespace) -> int:
    timer = _Timer()
    for name in sorted(existing_clusters()) if options.all else [options.name]:
        with locks.cluster(name):
            settings = load_settings(name)
            if settings is None:
                timer.say(f"there is no cluster {name}")
                continue
            teardown.down(Layout(name, settings.index), settings.nodes)
        timer.say(f"cluster {name} is gone after {timer.total():.1f} s")
    with locks.machine():
        teardown.give_back_machine()
    return 0


def _status(options: argparse.Namespace) -> int:
    layout, settings = _existing(options.name)
    members = nodes.all_of(layout, settings.nodes)
    running = {name: processes.pid_of(layout, name) for name in _components(layout, settings)}
    ready = {node.name: api.node_is_ready(layout, node.name) for node in members}
    healthy = all(running.values()) and all(ready.values()) and api.is_ready(layout)
    if options.output == "json":
        facts = {
            "name": layout.name,
            "healthy": healthy,
            "kubeconfig": str(layout.kubeconfig),
            "server": layout.server,
        }
        facts |= {"registry": layout.registry, "processes": running, "nodes": ready, "logs": str(layout.logs)}
        facts |= {"nodeFacts": {node.name: _node_facts(node) for node in members}}
        facts |= {"auditLog": str(layout.audit_log) if settings.audit else None}
        print(json.dumps(facts, indent=2))
        return 0 if healthy else 1
    print(f"cluster     {layout.name} ({'healthy' if healthy else 'NOT HEALTHY: `up` repairs it'})")
    print(f"kubeconfig  {layout.kubeconfig}  (context {layout.context})")
    print(f"API server  {layout.server}")
    print(f"registry    {layout.registry}  (plain HTTP; the same address from machine, nodes and pods)")
    print(f"logs        {layout.logs}" + (f"  (audit: {layout.audit_log.name})" if settings.audit else ""))
    for node in members:
        state = "Ready" if ready[node.name] else "not Ready"
        enter = " ".join(f"--{kind}={path}" for kind, path in node.namespaces.items())
        print(f"node        {node.name}  {node.address}  pods {node.pod_range}  {state}  nsenter {enter}")
    for name, pid in running.items():
        print(f"process     {name}  {f'pid {pid}' if pid else 'NOT RUNNING'}")
    return 0 if healthy else 1


def _node_facts(node: Node) -> dict[str, str]:
    """Where a node's things are on the machine."""
    return {
        "address": node.address,
        "kubelet": str(node.kubelet_directory),
        "store": str(node.store_directory),
        "netNamespace": str(node.namespace),
        "mountNamespace": str(node.view),
    }


def _node(options: argparse.Namespace) -> int:
    timer = _Timer()
    with locks.cluster(options.name):
        layout, settings = _existing(options.name)
        known = {node.name: node for node in nodes.all_of(layout, settings.nodes)}
        node = known.get(options.node)
        if node is None:
            raise ClusterError(
                f"cluster {layout.name} has no node {options.node}; it has: {', '.join(known) or 'none'}"
            )
        if options.action == "reboot":
            _reboot(node, list(known.values()), settings)
        elif options.action == "restart-kubelet":
            _restart_kubelet(node)
        elif options.action == "cut":
            network.cut(node)
        elif options.action == "join":
            network.join(node)
        elif options.rate is None:
            raise ClusterError("throttle needs --rate: a rate as tc(8) writes it (10mbit, 500kbit), or off")
        else:
            _require_programs(["tc"])
            network.throttle(node, None if options.rate == "off" else options.rate)
    timer.say(f"{options.action} {node.name}: done after {timer.total():.1f} s")
    return 0


def _reboot(node: Node, members: list[Node], settings: Settings) -> None:
    """Power off and on. A node that was cut off comes back so, and is then not waited for."""
    was_cut = network.is_cut(node)
    power.off(node)
    nodes.start_containerd(node, settings.store_size)
    network.ensure_routes(node.cluster, members)
    if was_cut:
        network.cut(node)
    since = nodes.start_kubelet(node)
    if not was_cut:
        nodes.wait_until_ready(node, since)


def _restart_kubelet(node: Node) -> None:
    """Kill the kubelet alone, as a crash or an upgrade of it does: pods and their mounts are left as they are."""
    processes.kill(node.cluster, [node.process("kubelet")])
    since = nodes.start_kubelet(node)
    if not network.is_cut(node):
        nodes.wait_until_ready(node, since)


def _load_image(options: argparse.Namespace) -> int:
    timer = _Timer()
    layout, settings = _existing(options.name)
    members = nodes.all_of(layout, settings.nodes)
    chosen = [node for node in members if not options.node or node.name in options.node]
    unknown = set(options.node or []) - {node.name for node in members}
    if unknown or not chosen:
        known = ", ".join(node.name for node in members) or "none"
        raise ClusterError(
            f"no such node: {', '.join(sorted(unknown)) or '(any)'}; cluster {layout.name} has: {known}"
        )
    for name, loaded in images.load(chosen, options.archive).items():
        timer.say(f"{name}: {', '.join(loaded) or 'nothing new'}")
    timer.say(f"loaded {options.archive} in {timer.total():.1f} s")
    return 0


def _kubeconfig(options: argparse.Namespace) -> int:
    layout, _ = _existing(options.name)
    print(layout.kubeconfig)
    return 0


def _env(options: argparse.Namespace) -> int:
    layout, _ = _existing(options.name)
    print(f"export KUBECONFIG={shlex.quote(str(layout.kubeconfig))}")
    print(f"export EDGEMODEL_REGISTRY={layout.registry}")
    print(f"export PATH={shlex.quote(str(cache_dir() / 'bin'))}:$PATH")
    return 0


def _build(options: argparse.Namespace) -> int:
    del options
    binaries.ensure(binaries.MODULES, _Timer().say)
    for module in binaries.MODULES:
        print(module.path())
    return 0


def _kubectl(options: argparse.Namespace) -> int:
    layout, _ = _existing(options.name)
    os.execve(
        binaries.KUBE.path(),
        ["kubectl", *options.arguments],
        os.environ | {"KUBECONFIG": str(layout.kubeconfig)},
    )


def _existing(name: str) -> tuple[Layout, Settings]:
    settings = load_settings(name)
    if settings is None:
        others = ", ".join(existing_clusters()) or "none"
        raise ClusterError(f"there is no cluster {name} (there are: {others}); `up --name {name}` makes it")
    return Layout(name, settings.index), settings


def _components(layout: Layout, settings: Settings) -> list[str]:
    parts = [part for node in nodes.all_of(layout, settings.nodes) for part in node.processes]
    return [*_CONTROL_PLANE, *(["coredns"] if settings.nodes else []), *parts]


def _require_programs(programs: Sequence[str]) -> None:
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        raise ClusterError(f"{', '.join(missing)} not found; run hack/install-tools")


class _Timer:
    """Prints each step with the seconds it took, so that a slow start shows where."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def total(self) -> float:
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        print(f"cluster: {text}", flush=True)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        print(f"  {time.monotonic() - started:5.2f} s  {what}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cluster",
        description="A real Kubernetes on this machine, for development and end-to-end tests.",
        epilog=f"State is in {clusters_dir()}/NAME (EDGEMODEL_CLUSTER_DIR), binaries in {cache_dir()} (EDGEMODEL_CACHE).",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--name", default=DEFAULT_NAME, help=f"which cluster (default: {DEFAULT_NAME})")
        sub.set_defaults(run=run)
        return sub

    up = command("up", _up, "Start it, repair it, or add nodes; on a healthy cluster it changes nothing.")
    size = up.add_mutually_exclusive_group()
    size.add_argument("--nodes", type=int, choices=range(1, MAX_NODES + 1), help="default: as before, else 1")
    size.add_argument(
        "--control-plane-only", action="store_true", help="no node, no DNS: for tests of the API"
    )
    up.add_argument(
        "--audit", action="store_true", help="write every request to logs/audit.log, one JSON a line"
    )
    up.add_argument(
        "--store-size",
        metavar="SIZE",
        help="limit each node's /var/lib/edgemodel, for tests of a full disk: 200M",
    )
    down = command("down", _down, "Remove it, with everything it made on this machine.")
    down.add_argument("--all", action="store_true", help="all clusters, not only --name")
    status = command("status", _status, "Say what runs and where; exit 1 if anything is wrong.")
    status.add_argument("--output", choices=["text", "json"], default="text")
    load = command(
        "load-image", _load_image, "Import an image archive (docker-archive or OCI tar) into the nodes."
    )
    load.add_argument("archive", type=Path)
    load.add_argument("--node", action="append", help="only this node (may be repeated)")
    node = command("node", _node, "Do to one node what happens to machines.")
    node.add_argument(
        "action",
        choices=["reboot", "restart-kubelet", "cut", "join", "throttle"],
        help="power off and on; kill its kubelet alone; pull its cable; plug it in; limit what its cable carries",
    )
    node.add_argument("node", metavar="NODE")
    node.add_argument("--rate", help="for throttle: 10mbit, 500kbit, off")
    command("kubeconfig", _kubeconfig, "Print the path of its kubeconfig.")
    command("env", _env, 'Print shell settings: eval "$(hack/cluster/cluster env)"')
    command("build", _build, "Build the binaries without starting anything (CI, images).")
    kubectl = command("kubectl", _kubectl, "Run kubectl on it: cluster kubectl -- get nodes")
    kubectl.add_argument("arguments", nargs="*")
    return parser
