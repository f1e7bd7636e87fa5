"""The cluster tool itself: starting again is harmless, a crash is repaired, nothing is open, nothing is left behind.

It makes clusters of its own, beside whichever others run on this machine.
"""

import json
import os
import re
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.layout import Layout, clusters_dir, existing_clusters, load_settings
from testbed.paths import ROOT
from testbed.shell import run
from testbed.waiting import until

CLUSTER = ROOT / "hack" / "cluster" / "cluster"
CONTROL_PLANE, WITH_NODES = "selftest-api", "selftest-nodes"
SHARED_PLACES = ("/run/netns", "/run/containerd/s", "/var/lib/cni/results", "/var/log/containers")


def layout_of(name: str) -> Layout:
    settings = load_settings(name)
    assert settings is not None, f"cluster {name} is not there"
    return Layout(name, settings.index)


def status(name: str) -> dict[str, Any]:
    done = run(CLUSTER, "status", "--name", name, "--output", "json", check=False)
    facts: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if facts["healthy"] else 1)
    return facts


def marks_of(cluster: Layout) -> Iterator[str]:
    """Texts that say that a link, a route or a file is another cluster's."""
    yield from (f"/{cluster.name}/", f"-{cluster.name}-", cluster.bridge)
    for address in cluster.directory.glob(
        "nodes/*/containerd-state/io.containerd.runtime.v2.task/*/*/address"
    ):
        with suppress(FileNotFoundError):  # its container has just ended
            yield address.read_text().rpartition("/")[2]
    for result in Path("/var/lib/cni/results").glob(f"edgemodel-{cluster.name}-*-eth0"):
        yield result.name.split("-")[-2]  # the sandbox's id


def footprint(name: str) -> dict[str, set[str]]:
    """Everything that a cluster of this name could leave on the machine.

    Its processes, mounts and cgroups have its name in them. What need not is everything there is, less what
    belongs to other clusters that run meanwhile.
    """
    others = [
        Layout(other, settings.index) for other, settings in existing_clusters().items() if other != name
    ]
    foreign = [mark for other in others for mark in marks_of(other)]

    def lines(*command: str) -> set[str]:
        text = re.sub(r"\[\d+:\d+\]", "", run(*command).stdout)  # a packet filter's counters
        return {line for line in text.splitlines() if not line.startswith("#")}

    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    cgroups = {path for path, _, _ in os.walk("/sys/fs/cgroup")}
    found = {
        "processes": {line for line in lines("ps", "-eo", "args") if f"{clusters_dir()}/{name}/" in line},
        "mounts": {path for path in mounts if path.startswith(f"{clusters_dir()}/{name}/")},
        "cgroups": {path for path in cgroups if f"edgemodel-{name}-" in path},
        "links": lines("ip", "-brief", "link"),
        "routes": lines("ip", "route", "show", "table", "all"),
        "packet filter": lines("iptables-save"),
    }
    for place in SHARED_PLACES:
        found[place] = {str(path.readlink() if path.is_symlink() else path) for path in Path(place).glob("*")}
    for what in ("links", "routes", "packet filter", *SHARED_PLACES):
        found[what] = {line for line in found[what] if not any(mark in line for mark in foreign)}
    return found


def until_nothing_is_left(name: str, before: dict[str, set[str]]) -> None:
    """The kernel takes a dead namespace's links away a moment after its last process, hence the wait."""

    def nothing_is_left() -> bool:
        left = {what: new for what, those in footprint(name).items() if (new := those - before[what])}
        assert not left, left
        return True

    until(nothing_is_left, "the machine to be as it was", timeout=10)


def answer_to(url: str, authority: Path, identity: Path | None = None) -> int:
    """The HTTP status of a request with this client certificate (a path without .crt), or with none."""
    trust = ssl.create_default_context(cafile=str(authority))
    if identity:
        trust.load_cert_chain(f"{identity}.crt", f"{identity}.key")
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
    )
    try:
        with opener.open(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module")
def control_plane() -> Iterator[str]:
    run(CLUSTER, "up", "--name", CONTROL_PLANE, "--control-plane-only", "--audit", timeout=900)
    yield CONTROL_PLANE
    run(CLUSTER, "down", "--name", CONTROL_PLANE)


def test_a_second_up_changes_nothing(control_plane: str) -> None:
    before = status(control_plane)
    assert before["healthy"]
    assert all(before["processes"].values())
    run(CLUSTER, "up", "--name", control_plane)
    assert status(control_plane)["processes"] == before["processes"]


def test_the_api_answers_nobody_without_a_certificate(control_plane: str) -> None:
    layout = layout_of(control_plane)
    authority = layout.pki / "ca.crt"
    assert answer_to(f"{layout.server}/readyz", authority, layout.pki / "admin") == 200
    assert answer_to(f"{layout.server}/readyz", authority) == 401
    assert answer_to(f"{layout.server}/api/v1/secrets", authority, layout.pki / "kube-proxy") == 403


def test_etcd_refuses_even_the_administrators_certificate_of_the_api(control_plane: str) -> None:
    layout = layout_of(control_plane)
    url = f"https://127.0.0.1:{layout.loopback_port(22379)}/version"
    authority = layout.pki / "etcd-ca.crt"
    assert answer_to(url, authority, layout.pki / "apiserver-etcd") == 200
    with pytest.raises(OSError, match=r"(?i)alert|EOF|reset"):  # which of them depends on who is faster
        answer_to(url, authority, layout.pki / "admin")


def test_nothing_listens_outside_the_machine(control_plane: str) -> None:
    layout = layout_of(control_plane)
    pids = {f"pid={pid}," for pid in status(control_plane)["processes"].values()}
    sockets = run("ss", "-tulnpH").stdout.splitlines()
    addresses = {line.split()[4].rpartition(":")[0] for line in sockets if any(pid in line for pid in pids)}
    assert addresses == {"127.0.0.1", layout.host_address}


def test_the_kubeconfig_has_one_context_that_names_the_cluster(control_plane: str) -> None:
    path = Path(run(CLUSTER, "kubeconfig", "--name", control_plane).stdout.strip())
    assert [context["name"] for context in json.loads(path.read_text())["contexts"]] == [
        f"edgemodel-{control_plane}"
    ]
    assert path.stat().st_mode & 0o077 == 0


def test_the_audit_log_has_the_writes(control_plane: str) -> None:
    log = Path(status(control_plane)["auditLog"])
    run(CLUSTER, "kubectl", "--name", control_plane, "--", "create", "configmap", "audited")

    def recorded() -> bool:
        entries = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        return any(
            entry["verb"] == "create" and entry.get("objectRef", {}).get("name") == "audited"
            for entry in entries
        )

    until(recorded, "the audit log to have the request", timeout=10)


def test_mistakes_are_refused_with_what_to_do(control_plane: str) -> None:
    refused = run(CLUSTER, "load-image", "--name", control_plane, CLUSTER, check=False)
    assert refused.returncode == 1
    assert "no such node" in refused.stderr
    nowhere = run(CLUSTER, "status", "--name", "selftest-nowhere", check=False)
    assert nowhere.returncode == 1
    assert "`up --name selftest-nowhere` makes it" in nowhere.stderr


def pod(name: str, node: str, **container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
            "containers": [{"name": name, "imagePullPolicy": "Never", **container}],
        },
    }


def test_two_nodes_find_each_other_survive_a_crash_and_leave_nothing(tmp_path: Path) -> None:
    base = run(ROOT / "hack" / "images" / "base", timeout=280).stdout.strip()
    archive = tmp_path / "base.tar"
    image = "localhost/edgemodel-selftest:1"
    run(
        "buildah",
        "push",
        "--quiet",
        base,
        f"docker-archive:{archive}:{image}",
        env={"STORAGE_DRIVER": "overlay"},
    )

    def kubectl(*arguments: str, stdin: str | None = None) -> str:
        return run(CLUSTER, "kubectl", "--name", WITH_NODES, "--", *arguments, stdin=stdin).stdout

    before = footprint(WITH_NODES)
    try:
        run(CLUSTER, "up", "--name", WITH_NODES, "--nodes", "2", timeout=900)
        layout = layout_of(WITH_NODES)
        loaded = run(CLUSTER, "load-image", "--name", WITH_NODES, archive).stdout
        assert loaded.count(image) == 2
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server"},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]},
        }
        ask = (
            "import urllib.request as request; "
            "print(request.urlopen('http://server.default.svc.cluster.local/etc/hostname', timeout=10).read().decode()); "
            f"print(request.urlopen('http://{layout.registry}/v2/', timeout=10).status)"
        )
        server = pod("server", f"{WITH_NODES}-1", image=image, command=["python3", "-m", "http.server"])
        client = pod("client", f"{WITH_NODES}-2", image=image, command=["python3", "-c", ask])
        kubectl(
            "apply",
            "-f",
            "-",
            stdin=json.dumps({"kind": "List", "apiVersion": "v1", "items": [service, server]}),
        )
        kubectl("wait", "--for=condition=Ready", "pod/server", "--timeout=120s")

        # From a pod on the other node by name, and from the machine by the Service's address.
        kubectl("apply", "-f", "-", stdin=json.dumps(client))
        kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/client", "--timeout=120s")
        assert kubectl("logs", "client").split() == ["server", "200"]
        address = kubectl("get", "service", "server", "-o", "jsonpath={.spec.clusterIP}")
        assert (
            run("curl", "-sS", "--noproxy", "*", f"http://{address}/etc/hostname").stdout.strip() == "server"
        )

        started = kubectl("get", "pod", "server", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
        for pid in status(WITH_NODES)["processes"].values():
            os.kill(pid, signal.SIGKILL)
        assert not status(WITH_NODES)["healthy"]
        run(CLUSTER, "up", "--name", WITH_NODES)
        assert status(WITH_NODES)["healthy"]
        smaller = run(CLUSTER, "up", "--name", WITH_NODES, "--nodes", "1", check=False)
        assert smaller.returncode == 1
        assert "has 2 nodes and can't be made smaller" in smaller.stderr
        kubectl("wait", "--for=condition=Ready", "pod/server", "--timeout=120s")
        after = kubectl("get", "pod", "server", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
        assert after == started, "a crash of the components must not restart the pods"
    finally:
        run(CLUSTER, "down", "--name", WITH_NODES)
    assert not layout.directory.exists()
    until_nothing_is_left(WITH_NODES, before)


def test_down_of_half_a_cluster_leaves_nothing() -> None:
    """As after a power cut in the middle of `up`: some of it is there, some is dead, some never was."""
    name = "selftest-half"
    before = footprint(name)
    run(CLUSTER, "up", "--name", name, "--control-plane-only", timeout=900)
    layout = layout_of(name)
    processes = status(name)["processes"]
    os.kill(processes["etcd"], signal.SIGKILL)
    (layout.pids / "registry.json").rename(layout.pids / "registry.old")
    os.kill(processes["registry"], signal.SIGKILL)
    subprocess.run(["ip", "link", "delete", layout.bridge], check=True)
    run(CLUSTER, "down", "--name", name)
    until_nothing_is_left(name, before)
    assert run(CLUSTER, "down", "--name", name).stdout.strip() == f"cluster: there is no cluster {name}"
