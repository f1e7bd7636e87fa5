"""The rights that the chart gives are enough for all that the operator does with nodes and gateway, and it asks for no more.

The rendered chart's account and roles on a real API server; the operator runs with a token of that account, and the API
server's audit log tells what it was refused.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import binaries
from edgemodel.api.meta import LABEL_MODEL, LABELS_MANAGED
from edgemodel.cluster.kinds import ENDPOINTS, POD, SERVICE, Kind
from tests.control_plane.fake_agent import FakeAgent
from tests.control_plane.fake_gateway import fake_gateway
from tests.control_plane.operator_process import operator
from tests.control_plane.own_cluster import ROOT
from tests.control_plane.site import Site
from tests.control_plane.test_node_delivery import becomes_active, fleet
from tests.control_plane.test_node_faults import ALTERED
from tests.control_plane.waiting import until

__all__ = ["fleet"]

RBAC = "rbac.authorization.k8s.io/v1"
KINDS = {
    "ServiceAccount": Kind("v1", "ServiceAccount", "serviceaccounts"),
    "Role": Kind(RBAC, "Role", "roles"),
    "RoleBinding": Kind(RBAC, "RoleBinding", "rolebindings"),
    "ClusterRole": Kind(RBAC, "ClusterRole", "clusterroles", namespaced=False),
    "ClusterRoleBinding": Kind(RBAC, "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
}

pytestmark = pytest.mark.timeout(400)  # the first run may have to build Helm


def of_the_operator(site: Site, *, narrow: bool) -> list[dict[str, Any]]:
    """Render the chart into the site's namespace; return what is about the operator's rights."""
    binaries.ensure((binaries.HELM,), print)
    command = [str(binaries.HELM.path()), "template", "rights", str(ROOT / "charts/edgemodel")]
    command += ["--namespace", site.namespace, "--set", f"fullnameOverride={site.namespace}"]
    if narrow:
        command += ["--set", f"watchNamespaces={{{site.namespace}}}"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    documents = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] in KINDS]
    return [one for one in documents if not one["metadata"]["name"].startswith(f"{site.namespace}-node")]


async def token(site: Site) -> str:
    """Return a token of the operator's account."""
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600},
    }
    path = KINDS["ServiceAccount"].path(site.namespace, site.namespace, subresource="token")
    answer = await site.api._call("POST", path, body=request)
    return str(answer["status"]["token"])


def with_token(kubeconfig: Path, folder: Path, token: str) -> Path:
    """Return a kubeconfig that uses it."""
    config = yaml.safe_load(kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    file = folder / "operator.kubeconfig"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(config))
    return file


def audited(kubeconfig: Path, account: str) -> tuple[int, set[str]]:
    """Return how often an account asked for something, and what it was refused, by the API server's audit log."""
    asked, refused = 0, set()
    with (kubeconfig.parent / "logs" / "audit.log").open() as lines:
        for line in lines:
            if account not in line:
                continue
            event = json.loads(line)
            if event["user"]["username"] == account:
                asked += 1
                if event.get("responseStatus", {}).get("code") == 403:
                    refused.add(f"{event['verb']} {event['requestURI']}")
    return asked, refused


@pytest.mark.parametrize("narrow", [False, True], ids=["all namespaces", "one namespace"])
async def test_the_charts_rights_are_enough(
    site: Site,
    fleet: tuple[FakeAgent, ...],
    kubeconfig: Path,
    tmp_path: Path,
    narrow: bool,
) -> None:
    made = of_the_operator(site, narrow=narrow)
    for document in made:
        await site.api.apply(KINDS[document["kind"]], document, manager="tests")
    try:
        account = with_token(kubeconfig, tmp_path, await token(site))
        settings = {
            "registries": {site.registry.host: {"plainHTTP": True}},
            "namespaces": [site.namespace],
            "nodeNamespace": site.namespace,
            "nodeLookInterval": 1,
        }
        digest = site.publish("1.0.0")
        await site.policy()
        await site.pull_secret("pull", "edge", "password")
        access = f"{site.namespace}-gateway-access"
        async with (
            fake_gateway(site.api, site.namespace, kubeconfig, access=access) as gateway,
            operator(tmp_path, account, **settings, **gateway.settings()),
        ):
            await site.secret("callers", "Opaque", "camera", "token-of-the-camera")
            guarded = {"bearerTokens": {"secretName": "callers"}}
            await site.apply(pullSecrets=[{"name": "pull"}], access=guarded)
            await site.serves(digest)
            for agent in fleet:
                await becomes_active(agent, digest)
            selector = {"spec": {"selector": {LABEL_MODEL: "detector"}}}
            await site.api.merge(SERVICE, site.namespace, "detector", selector)

            async def nothing_left_behind() -> bool:
                service = await site.service()
                endpoints = await site.api.get(ENDPOINTS, site.namespace, "detector")
                return service is not None and not service["spec"].get("selector") and endpoints is None

            await until(nothing_left_behind, "what Kubernetes made for the selector goes")
            (pod,) = await site.api.list(POD, site.namespace, labels=LABELS_MANAGED)
            (there,) = [agent for agent in fleet if agent.node == pod["spec"]["nodeName"]]
            there.fates["detector"] = ALTERED
            await until(lambda: site.events("PodEvicted"), "a pod is evicted")
            there.fates.clear()
            await site.becomes("Degraded", "False")
            await site.delete()

            async def nothing_left() -> bool:
                return not any([await agent.wanted() for agent in fleet])

            await until(nothing_left, "the entries vanish")
        user = f"system:serviceaccount:{site.namespace}:{site.namespace}"
        asked, refused = audited(kubeconfig, user)
        assert asked > 50
        assert refused == set()
    finally:
        for document in made:
            kind, meta = KINDS[document["kind"]], document["metadata"]
            live = await site.api.get(kind, meta.get("namespace"), meta["name"])
            if live is not None:
                await site.api.delete(kind, meta.get("namespace"), meta["name"], uid=live["metadata"]["uid"])
