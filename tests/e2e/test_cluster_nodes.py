"""The nodes of a cluster of this machine: they find each other, are as separate as machines, and break and come back.

One cluster of two nodes for all of it; after the last test it must have left nothing behind.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.layout import Layout
from testbed.footprint import CLUSTER, footprint, layout_of, status, until_nothing_is_left
from testbed.paths import ROOT
from testbed.shell import run
from testbed.waiting import until

NAME = "selftest-nodes"
IMAGE = "localhost/edgemodel-selftest:1"
FIRST, SECOND = f"{NAME}-1", f"{NAME}-2"
STORE_MEGABYTES = 32
CURL = ("curl", "-sS", "--noproxy", "*")
# What an agent does: a mount inside the kubelet's folder, made in its own container and meant for the kubelet.
MOUNTING = """
import ctypes, errno, os, signal
os.makedirs("/var/lib/kubelet/pods/selftest/volume")
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"tmpfs", b"/var/lib/kubelet/pods/selftest/volume", b"tmpfs", 0, b"") == 0, os.strerror(ctypes.get_errno())
open("/var/lib/edgemodel/written-on-" + os.environ["NODE"], "x").close()
try:
    with open("/var/lib/edgemodel/large", "wb", buffering=0) as file:
        while file.write(bytes(1 << 20)):
            pass
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
    os.unlink("/var/lib/edgemodel/large")
signal.pause()
"""


@dataclass(frozen=True)
class Cluster:
    layout: Layout

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run(CLUSTER, "kubectl", "--name", NAME, "--", *arguments, stdin=stdin).stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"kind": "List", "apiVersion": "v1", "items": objects})
        )

    def wait(self, name: str, what: str = "condition=Ready") -> None:
        self.kubectl("wait", f"--for={what}", f"pod/{name}", "--timeout=120s")

    def field(self, kind: str, name: str, path: str) -> str:
        return self.kubectl("get", kind, name, "-o", f"jsonpath={{{path}}}")

    def node(self, action: str, *arguments: str) -> None:
        run(CLUSTER, "node", action, *arguments, "--name", NAME)

    def inside(self, node: int, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        entered = [f"--{kind}={path}" for kind, path in self.layout.node(node).namespaces.items()]
        return run("nsenter", *entered, "--", *command, check=check)

    def mounts(self, node: int) -> list[str]:
        lines = self.inside(node, "cat", "/proc/self/mountinfo").stdout.splitlines()
        return [line.split()[4] for line in lines]


def pod(name: str, node: str, **container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "OnFailure",
            "containers": [
                {"name": name, "image": IMAGE, "imagePullPolicy": "Never", **container},
            ],
        },
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = run(ROOT / "hack" / "images" / "base", timeout=280).stdout.strip()
    archive = tmp_path_factory.mktemp("image") / "base.tar"
    push = ("buildah", "push", "--quiet", base, f"docker-archive:{archive}:{IMAGE}")
    run(*push, env={"STORAGE_DRIVER": "overlay"})
    before = footprint(NAME)
    try:
        size = f"{STORE_MEGABYTES}M"
        run(CLUSTER, "up", "--name", NAME, "--nodes", "2", "--store-size", size, timeout=900)
        layout = layout_of(NAME)
        loaded = run(CLUSTER, "load-image", "--name", NAME, archive).stdout
        assert loaded.count(IMAGE) == 2
        cluster = Cluster(layout)
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "server"},
                "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]},
            },
            pod("server", FIRST, command=["python3", "-m", "http.server"]),
        )
        cluster.wait("server")
        yield cluster
    finally:
        run(CLUSTER, "down", "--name", NAME)
    assert not layout.directory.exists()
    until_nothing_is_left(NAME, before)


def test_pods_reach_a_service_and_the_registry_by_name_and_across_nodes(cluster: Cluster) -> None:
    ask = (
        "import urllib.request as request; "
        "print(request.urlopen('http://server.default.svc.cluster.local/etc/hostname', timeout=10).read().decode()); "
        f"print(request.urlopen('http://{cluster.layout.registry}/v2/', timeout=10).status)"
    )
    cluster.apply(pod("client", SECOND, command=["python3", "-c", ask]))
    cluster.wait("client", "jsonpath={.status.phase}=Succeeded")
    assert cluster.kubectl("logs", "client").split() == ["server", "200"]
    address = cluster.field("service", "server", ".spec.clusterIP")
    assert run(*CURL, f"http://{address}/etc/hostname").stdout.strip() == "server"


def test_a_privileged_pod_mounts_for_its_own_node_alone(cluster: Cluster) -> None:
    kubelet, store = {"name": "kubelet"}, {"name": "store"}
    for number, node in enumerate((FIRST, SECOND), start=1):
        mounting = pod(
            f"mounting-{number}",
            node,
            command=["python3", "-c", MOUNTING],
            env=[{"name": "NODE", "value": node}],
            securityContext={"privileged": True},
            volumeMounts=[
                {**kubelet, "mountPath": "/var/lib/kubelet", "mountPropagation": "Bidirectional"},
                {**store, "mountPath": "/var/lib/edgemodel"},
            ],
        )
        mounting["spec"]["volumes"] = [
            {**kubelet, "hostPath": {"path": "/var/lib/kubelet", "type": "Directory"}},
            {**store, "hostPath": {"path": "/var/lib/edgemodel", "type": "Directory"}},
        ]
        if number == 1:
            cluster.apply(mounting)
            cluster.wait("mounting-1")
            until(lambda: cluster.kubectl("logs", "mounting-1"), "the pod to have done it", timeout=30)
            mounted = "/var/lib/kubelet/pods/selftest/volume"
            assert cluster.mounts(1).count(mounted) == 1
            assert mounted not in cluster.mounts(2)
            assert "selftest/volume" not in Path("/proc/self/mountinfo").read_text()
        else:
            cluster.apply(mounting)
            cluster.wait("mounting-2")
    for number, node in enumerate((FIRST, SECOND), start=1):
        until(lambda n=number: cluster.kubectl("logs", f"mounting-{n}").strip() == "ENOSPC", "a full disk")  # type: ignore[misc]
        here = Path(status(NAME)["nodeFacts"][node]["store"])
        assert [path.name for path in here.glob("written-*")] == [f"written-on-{node}"]
        assert os.statvfs(here).f_blocks * os.statvfs(here).f_frsize < STORE_MEGABYTES << 20
    cluster.kubectl("delete", "pod", "mounting-1", "mounting-2", "--wait=false")


def test_a_crash_of_all_components_leaves_the_pods_running(cluster: Cluster) -> None:
    container = ".status.containerStatuses[0].containerID"
    started, boot_id = cluster.field("pod", "server", container), boot_id_of(cluster)
    for pid in status(NAME)["processes"].values():
        os.kill(pid, signal.SIGKILL)
    assert not status(NAME)["healthy"]
    run(CLUSTER, "up", "--name", NAME)
    assert status(NAME)["healthy"]
    cluster.wait("server")
    assert cluster.field("pod", "server", container) == started
    assert boot_id_of(cluster) == boot_id
    smaller = run(CLUSTER, "up", "--name", NAME, "--nodes", "1", check=False)
    assert smaller.returncode == 1
    assert "has 2 nodes and can't be made smaller" in smaller.stderr


def boot_id_of(cluster: Cluster) -> str:
    return cluster.inside(1, "cat", "/proc/sys/kernel/random/boot_id").stdout


def test_a_reboot_ends_everything_on_the_node_and_brings_it_back(cluster: Cluster) -> None:
    boot_id = boot_id_of(cluster)
    server = next(pid for pid in map(int, pids_of("http.server")) if in_cgroup(pid, cluster, 1))
    neighbour = status(NAME)["processes"][f"kubelet-{SECOND}"]
    marker = Path(status(NAME)["nodeFacts"][FIRST]["store"]) / "kept"
    marker.write_text("on disk")
    cluster.inside(1, "mkdir", "-p", "/var/lib/kubelet/left")
    cluster.inside(1, "mount", "-t", "tmpfs", "tmpfs", "/var/lib/kubelet/left")
    cluster.node("reboot", FIRST)
    # Dead at once, but in the table of processes until someone reaps it.
    until(lambda: not in_cgroup(server, cluster, 1), "the pod's process to be gone", timeout=20)
    assert boot_id_of(cluster) != boot_id
    assert "/var/lib/kubelet/left" not in cluster.mounts(1)
    assert cluster.inside(1, "cat", "/var/lib/edgemodel/kept").stdout == "on disk"
    assert status(NAME)["processes"][f"kubelet-{SECOND}"] == neighbour

    def serves_again() -> bool:
        address = cluster.field("pod", "server", ".status.podIP")
        return run(*CURL, "-m", "2", f"http://{address}:8000/etc/hostname").returncode == 0

    until(serves_again, "the pod to serve again", timeout=60)
    assert int(cluster.field("pod", "server", ".status.containerStatuses[0].restartCount")) >= 1


def pids_of(words: str) -> list[str]:
    return run("pgrep", "-f", words, check=False).stdout.split()


def in_cgroup(pid: int, cluster: Cluster, node: int) -> bool:
    try:
        return f"/{cluster.layout.node(node).cgroup}/" in Path(f"/proc/{pid}/cgroup").read_text()
    except FileNotFoundError:
        return False


def test_a_cable_is_cut_joined_and_throttled(cluster: Cluster) -> None:
    address = cluster.field("pod", "server", ".status.podIP")

    def fetch() -> subprocess.CompletedProcess[str]:
        # The interpreter itself is a file of some megabytes.
        asked = ("-m", "20", "-o", "/dev/null", "-w", "%{size_download} %{time_total}")
        return cluster.inside(2, *CURL, *asked, f"http://{address}:8000/usr/bin/python3", check=False)

    cluster.node("cut", SECOND)
    assert cluster.inside(2, *CURL, "-m", "1", f"http://{address}:8000/", check=False).returncode != 0
    cluster.node("join", SECOND)
    until(lambda: fetch().returncode == 0, "the node to be joined again", timeout=30)

    cluster.node("throttle", SECOND, "--rate", "20mbit")
    size, seconds = map(float, fetch().stdout.split())
    assert 10 < size * 8 / seconds / 1e6 < 22
    cluster.node("throttle", SECOND, "--rate", "off")
    size, seconds = map(float, fetch().stdout.split())
    assert size * 8 / seconds / 1e6 > 40
    unknown = run(CLUSTER, "node", "cut", "nobody", "--name", NAME, check=False)
    assert unknown.returncode == 1
    assert f"has no node nobody; it has: {FIRST}, {SECOND}" in unknown.stderr
