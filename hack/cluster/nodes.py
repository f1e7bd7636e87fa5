"""A node: containerd, kubelet and kube-proxy in a network and a mount namespace, as on a machine of its own.

Nothing of a node is outside its folder, except its cgroups, the links that every kubelet makes in
/var/log/containers and what libcni remembers in /var/lib/cni/results; `teardown` removes those too.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from cluster import api, host, images, network, pki, processes, view
from cluster.binaries import KUBE
from cluster.layout import CLUSTER_DOMAIN, Layout, Node

_CONTAINERD = """\
version = 2
root = "{directory}/containerd"
state = "{directory}/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{socket}"

[debug]
  level = "warn"

[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/containerd-opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Lowering oom_score_adj needs CAP_SYS_RESOURCE, which root in a virtual machine or container may lack;
  # without this every sandbox dies with "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{directory}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{directory}/runc"
      SystemdCgroup = false
"""


def start_containerd(node: Node, store_size: str | None) -> None:
    """Make the node's network and its view of the machine, and start its container runtime, which is not waited for."""
    network.ensure_node(node)
    view.ensure(node, store_size)
    directory = node.directory
    (directory / "containerd.toml").write_text(
        _CONTAINERD.format(directory=directory, socket=node.containerd_socket, pause=images.PAUSE_NAME)
    )
    _write_cni(node)
    _trust_registry(directory / "certs.d" / node.cluster.registry, node.cluster.registry)
    command = ["containerd", "--config", str(directory / "containerd.toml")]
    processes.start(node.cluster, node.process("containerd"), command, namespaces=node.namespaces)


def start_kubelet(node: Node) -> datetime | None:
    """Start the node's kubelet and proxy, once its runtime answers and has the pause image.

    Returns:
        When the kubelet of a node that the API knew already was started again, else None.
    """
    layout = node.cluster
    api.wait(
        layout,
        f"the container runtime of {node.name}",
        lambda: images.runtime_answers(node),
        [node.process("containerd")],
    )
    images.ensure_pause(node)
    _make_cgroups(node)
    configuration = node.directory / "kubelet.json"
    configuration.write_text(json.dumps(_kubelet_configuration(node), indent=1))
    name = node.process("kubelet")
    kubelet = [
        *(str(KUBE.path()), "kubelet", f"--config={configuration}"),
        f"--kubeconfig={layout.pki / f'{name}.kubeconfig'}",
        *(f"--root-dir={view.KUBELET}", f"--cert-dir={node.directory / 'kubelet-pki'}"),
        *(f"--hostname-override={node.name}", f"--node-ip={node.address}"),
    ]
    returning = datetime.now(UTC) if api.get(layout, f"/api/v1/nodes/{node.name}")[0] == 200 else None
    started = processes.start(layout, name, kubelet, namespaces=node.namespaces)
    proxy = [
        *(str(KUBE.path()), "kube-proxy", f"--kubeconfig={layout.pki / 'kube-proxy.kubeconfig'}"),
        *(f"--hostname-override={node.name}", f"--cluster-cidr={layout.pod_range}", "--proxy-mode=iptables"),
        # The namespace's conntrack limits are the machine's, and read-only in here.
        *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"),
        *("--conntrack-tcp-timeout-close-wait=0", "--oom-score-adj=0"),
        *("--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"),
    ]
    processes.start(layout, node.process("kube-proxy"), proxy, namespaces=node.namespaces)
    return returning if started else None


def wait_until_ready(node: Node, since: datetime | None) -> None:
    """Wait until the node is Ready, and its kubelet has been heard of since then."""
    api.wait(
        node.cluster,
        f"node {node.name} Ready",
        lambda: api.node_is_ready(node.cluster, node.name, since),
        node.processes,
    )


def all_of(layout: Layout, count: int) -> list[Node]:
    return [layout.node(number) for number in range(1, count + 1)]


def prepare(node: Node) -> None:
    """The parts that need no network: certificates."""
    node.directory.mkdir(parents=True, exist_ok=True)
    pki.ensure_node(node)


def _kubelet_configuration(node: Node) -> dict[str, object]:
    layout = node.cluster
    resolver = node.directory / "resolv.conf"
    resolver.write_text(f"nameserver {layout.dns_service_address}\n")
    name = node.process("kubelet")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / f"{name}-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / f"{name}-server.key"),
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "podLogsDir": str(node.directory / "pod-logs"),
        "volumePluginDir": str(node.directory / "volume-plugins"),
        "resolvConf": str(resolver),
        "clusterDNS": [layout.dns_service_address],
        "clusterDomain": CLUSTER_DOMAIN,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "serializeImagePulls": False,
        # The machine's disk and memory are not this cluster's to defend: never evict, never collect images.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
    }


def _write_cni(node: Node) -> None:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "hairpinMode": True,
        # Pods keep their own address everywhere: every place they can reach has a route back.
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": node.pod_range}]],
            "dataDir": str(node.directory / "ipam"),
        },
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    document = {"cniVersion": "0.4.0", "name": node.cni_network, "plugins": plugins}
    path = node.directory / "cni" / "10-edgemodel.conflist"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1))


def _trust_registry(directory: Path, registry: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    url = f"http://{registry}"
    hosts = f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
    (directory / "hosts.toml").write_text(hosts)


def _make_cgroups(node: Node) -> None:
    for hierarchy in host.cgroup_hierarchies():
        directory = hierarchy / node.cgroup
        directory.mkdir(exist_ok=True)
        # A new v1 cpuset is empty, and nothing can run in it.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            ours, parents = directory / setting, hierarchy / setting
            if ours.exists() and parents.exists() and not ours.read_text().strip():
                ours.write_text(parents.read_text())
