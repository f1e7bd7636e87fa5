"""The cluster tool itself: starting again is harmless, a crash is repaired, nothing is open, nothing is left behind.

It makes clusters of its own, beside whichever others run on this machine. Nodes: test_cluster_nodes.py.
"""

import json
import os
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.footprint import CLUSTER, footprint, layout_of, status, until_nothing_is_left
from testbed.shell import run
from testbed.waiting import until

CONTROL_PLANE = "selftest-api"


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
