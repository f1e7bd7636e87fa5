"""The little of the Kubernetes API that starting a cluster needs: is it ready, is the node ready, apply this.

Requests carry the administrator's client certificate and trust only the cluster's own authority.
"""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from typing import Any

from cluster import processes
from cluster.binaries import KUBE
from cluster.layout import ClusterError, Layout

# Seconds. Each wait is over in two or three on an idle machine; this is for one that builds something meanwhile.
_PATIENCE = 120.0


def get(layout: Layout, path: str) -> tuple[int, bytes]:
    """Status and body of one GET; status 0 when there was no answer."""
    trust = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
    trust.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")
    # Never through a proxy that the environment names: the address is this machine's.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
    )
    try:
        with opener.open(layout.server + path, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def is_ready(layout: Layout) -> bool:
    return get(layout, "/readyz")[0] == 200


def node_is_ready(layout: Layout, name: str, since: datetime | None = None) -> bool:
    """Whether the node says that it is Ready, and has said anything since then.

    What a kubelet that died last said stays in the API for 40 seconds: only a heartbeat and a lease renewed since
    then show that the one that runs now has looked.
    """
    status, body = get(layout, f"/api/v1/nodes/{name}")
    if status != 200:
        return False
    conditions: list[dict[str, Any]] = json.loads(body).get("status", {}).get("conditions", [])
    said = [condition for condition in conditions if condition["type"] == "Ready"]
    if not said or said[0]["status"] != "True":
        return False
    if since is None:
        return True
    # A heartbeat is told in whole seconds.
    if datetime.fromisoformat(said[0]["lastHeartbeatTime"]) < since.replace(microsecond=0):
        return False
    status, body = get(layout, f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
    return status == 200 and datetime.fromisoformat(json.loads(body)["spec"]["renewTime"]) >= since


def wait(
    layout: Layout,
    what: str,
    condition: Callable[[], bool],
    components: list[str],
    seconds: float = _PATIENCE,
) -> None:
    """Wait for a condition that these components bring about.

    Raises:
        ClusterError: One of them stopped, or the time is over; the text has the ends of their logs.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        for name in components:
            processes.require_alive(layout, name)
        if time.monotonic() > deadline:
            tails = "\n".join(processes.log_tail(layout, name, 8) for name in components)
            raise ClusterError(
                f"{what} was not there after {seconds:.0f} s, though {', '.join(components)} run.\n{tails}\n"
                f"All logs are in {layout.logs}; `down` and `up` start anew."
            )
        time.sleep(0.05)


def apply(layout: Layout, objects: list[dict[str, Any]]) -> None:
    """Server-side apply, as the field manager of this command."""
    command = [str(KUBE.path()), "kubectl", "--kubeconfig", str(layout.kubeconfig), "apply", "--server-side"]
    command += ["--force-conflicts", "--field-manager=edgemodel-cluster", "-f", "-"]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    result = subprocess.run(command, input=document, check=False, capture_output=True, text=True, timeout=60)
    if result.returncode != 0:
        raise ClusterError(f"applying the cluster's own objects failed: {result.stderr.strip()[-1000:]}")
