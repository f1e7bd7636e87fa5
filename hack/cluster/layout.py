"""Where everything of a cluster is: names, addresses, ports, paths. It does nothing.

A cluster is a name and an index. The index, 0 for the default cluster and else the lowest one free when it was
first started, decides every address, so clusters of different names never share one:

| what | index 0 | index i |
|---|---|---|
| machine's address on the cluster's bridge | 10.99.0.1 | 10.99.i.1 |
| node k (1, 2, …) | 10.99.0.(10+k) | 10.99.i.(10+k) |
| pods of node k | 10.42.k.0/24 | 10.(42+2i).k.0/24 |
| services | 10.43.0.0/16 | 10.(43+2i).0.0/16 |

Index 0 has K3s's own ranges. Nothing listens on an address outside these and 127.0.0.1.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "v1.34.4"
HELM_VERSION = "v4.3.1"
DEFAULT_NAME = "dev"
CLUSTER_DOMAIN = "cluster.local"
API_PORT = 6443
REGISTRY_PORT = 5000
DNS_PORT = 1053
MAX_CLUSTERS = 8
MAX_NODES = 9
NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,15}")


class ClusterError(Exception):
    """Something that a person has to change; its text says what, and how."""


def cache_dir() -> Path:
    """What is kept between clusters: binaries and the archives of base images."""
    return Path(os.environ.get("EDGEMODEL_CACHE") or Path.home() / ".cache" / "edgemodel").absolute()


def clusters_dir() -> Path:
    """The folder that holds one folder per cluster."""
    return Path(os.environ.get("EDGEMODEL_CLUSTER_DIR") or "/var/lib/edgemodel-cluster").absolute()


@dataclass(frozen=True)
class Node:
    """One node: a network and a mount namespace with a container runtime, a kubelet and a proxy in them."""

    cluster: "Layout"
    number: int

    @property
    def name(self) -> str:
        return f"{self.cluster.name}-{self.number}"

    @property
    def address(self) -> str:
        return f"10.99.{self.cluster.index}.{10 + self.number}"

    @property
    def pod_range(self) -> str:
        return f"10.{42 + 2 * self.cluster.index}.{self.number}.0/24"

    @property
    def link(self) -> str:
        """The machine's end of the node's cable (15 characters are the kernel's limit)."""
        return f"em{self.cluster.index}n{self.number}"

    @property
    def cgroup(self) -> str:
        return f"edgemodel-{self.name}"

    @property
    def cni_network(self) -> str:
        return f"edgemodel-{self.name}"

    @property
    def directory(self) -> Path:
        return self.cluster.directory / "nodes" / self.name

    @property
    def namespace(self) -> Path:
        """The file that the node's network namespace is mounted on."""
        return self.directory / "netns"

    @property
    def containerd_socket(self) -> Path:
        return self.directory / "containerd.sock"

    @property
    def view(self) -> Path:
        """The file that the node's mount namespace is mounted on."""
        return self.directory / "view" / "mnt"

    @property
    def kubelet_directory(self) -> Path:
        """What the node sees as /var/lib/kubelet. Mounts in it are seen by the node alone."""
        return self.directory / "kubelet"

    @property
    def store_directory(self) -> Path:
        """What the node sees as /var/lib/edgemodel."""
        return self.directory / "edgemodel"

    @property
    def hardware_address(self) -> str:
        """The same after a reboot, so that nobody remembers a wrong one."""
        return f"02:65:6d:00:{self.cluster.index:02x}:{self.number:02x}"

    @property
    def namespaces(self) -> dict[str, Path]:
        """What the node's processes run in, as `nsenter` calls it."""
        return {"net": self.namespace, "mount": self.view}

    @property
    def processes(self) -> list[str]:
        return [self.process(part) for part in ("containerd", "kubelet", "kube-proxy")]

    def process(self, component: str) -> str:
        return f"{component}-{self.name}"


@dataclass(frozen=True)
class Layout:
    """One cluster's names, addresses and paths."""

    name: str
    index: int

    @property
    def directory(self) -> Path:
        return clusters_dir() / self.name

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def pids(self) -> Path:
        return self.directory / "pids"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.log"

    @property
    def context(self) -> str:
        return f"edgemodel-{self.name}"

    @property
    def bridge(self) -> str:
        return f"em{self.index}"

    @property
    def host_address(self) -> str:
        return f"10.99.{self.index}.1"

    @property
    def pod_range(self) -> str:
        return f"10.{42 + 2 * self.index}.0.0/16"

    @property
    def service_range(self) -> str:
        return f"10.{43 + 2 * self.index}.0.0/16"

    @property
    def api_service_address(self) -> str:
        return f"10.{43 + 2 * self.index}.0.1"

    @property
    def dns_service_address(self) -> str:
        return f"10.{43 + 2 * self.index}.0.10"

    @property
    def server(self) -> str:
        return f"https://{self.host_address}:{API_PORT}"

    @property
    def registry(self) -> str:
        return f"{self.host_address}:{REGISTRY_PORT}"

    def loopback_port(self, base: int) -> int:
        """A port on 127.0.0.1 that no other cluster of ours uses."""
        return base + 100 * self.index

    def node(self, number: int) -> Node:
        return Node(self, number)


@dataclass(frozen=True)
class Settings:
    """What `up` was asked for; kept, so that a later `up` without arguments repairs the same cluster."""

    index: int
    nodes: int
    audit: bool = False
    store_size: str | None = None

    def save(self, layout: Layout) -> None:
        layout.directory.mkdir(parents=True, exist_ok=True)
        path = layout.directory / "cluster.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(self.__dict__))
        temporary.replace(path)


def load_settings(name: str) -> Settings | None:
    """What a cluster of this name was started with, or None if there is none."""
    path = clusters_dir() / name / "cluster.json"
    try:
        return Settings(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ClusterError(
            f"{path} is damaged ({error}); remove {path.parent} after `down --name {name}`"
        ) from error


def existing_clusters() -> dict[str, Settings]:
    """All clusters on this machine, by name."""
    found: dict[str, Settings] = {}
    for path in sorted(clusters_dir().glob("*/cluster.json")):
        settings = load_settings(path.parent.name)
        if settings:
            found[path.parent.name] = settings
    return found


def free_index(name: str) -> int:
    """The index for a new cluster: 0 is kept for the default one, so that its addresses never change."""
    if name == DEFAULT_NAME:
        return 0
    taken = {settings.index for settings in existing_clusters().values()}
    for index in range(1, MAX_CLUSTERS):
        if index not in taken:
            return index
    raise ClusterError(
        f"{MAX_CLUSTERS} clusters are up already: {', '.join(existing_clusters())}; take one down"
    )
