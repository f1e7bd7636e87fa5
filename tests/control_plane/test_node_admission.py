"""What a node agent's token allows on a real API server: its own node's EdgeNode and Lease, and no other object.

The rendered chart's account, roles and admission policy; tokens are asked for as the kubelet does, bound to a pod on a node.
"""

import os
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import yaml

from cluster import binaries
from edgemodel.api.meta import API_VERSION, LEASE_PREFIX, NODE_MANAGER
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.kinds import NAMESPACE, POD, Kind
from tests.control_plane.own_cluster import ROOT
from tests.control_plane.waiting import until

EDGE_NODE = Kind(API_VERSION, "EdgeNode", "edgenodes", namespaced=False)
NODE = Kind("v1", "Node", "nodes", namespaced=False)
RBAC, ADMISSION = "rbac.authorization.k8s.io/v1", "admissionregistration.k8s.io/v1"
CHART_KINDS = {
    "ServiceAccount": Kind("v1", "ServiceAccount", "serviceaccounts"),
    "Role": Kind(RBAC, "Role", "roles"),
    "RoleBinding": Kind(RBAC, "RoleBinding", "rolebindings"),
    "ClusterRole": Kind(RBAC, "ClusterRole", "clusterroles", namespaced=False),
    "ClusterRoleBinding": Kind(RBAC, "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    "ValidatingAdmissionPolicy": Kind(
        ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False
    ),
    "ValidatingAdmissionPolicyBinding": Kind(
        ADMISSION, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", namespaced=False
    ),
}
RELEASE = f"t{os.getpid()}"
SYSTEM = f"{RELEASE}-system"
ACCOUNT = f"{RELEASE}-node"
HERE, THERE = f"{RELEASE}-here", f"{RELEASE}-there"
ENTRY = {
    "namespace": "vision",
    "name": "detector",
    "digest": "sha256:" + "a" * 64,
    "image": "registry.example.com/detector@sha256:" + "a" * 64,
    "role": "Active",
}

pytestmark = pytest.mark.timeout(400)  # the first run may have to build Helm


def of_the_agent() -> list[dict[str, Any]]:
    """Render the chart; return what is about the agent's rights."""
    binaries.ensure((binaries.HELM,), print)
    command = [str(binaries.HELM.path()), "template", RELEASE, str(ROOT / "charts/edgemodel")]
    flags = ["--namespace", SYSTEM, "--set", f"fullnameOverride={RELEASE}"]
    rendered = subprocess.run([*command, *flags], capture_output=True, text=True, check=True).stdout
    documents = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] in CHART_KINDS]
    return [one for one in documents if ACCOUNT in one["metadata"]["name"]]


@dataclass
class Agent:
    """Speaks to the API server with one token."""

    client: httpx.AsyncClient

    async def send(
        self, method: str, path: str, body: dict[str, Any] | None = None, **query: str
    ) -> tuple[int, str]:
        """Return status and message; a PATCH is a server-side apply."""
        kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        if method == "PATCH":
            query = {"fieldManager": NODE_MANAGER, "force": "true", **query}
        answer = await self.client.request(
            method, path, json=body, params=query, headers={"Content-Type": kind}
        )
        return answer.status_code, str(answer.json().get("message", ""))

    async def create(self, name: str, spec: dict[str, Any] | None = None, **query: str) -> tuple[int, str]:
        return await self.send("POST", EDGE_NODE.path(), edge_node(name, spec), **query)

    async def report(self, name: str, version: str = "1.0.0") -> tuple[int, str]:
        body = edge_node(name) | {"status": {"agentVersion": version}}
        return await self.send("PATCH", EDGE_NODE.path(None, name, subresource="status"), body)

    async def beat(self, name: str, method: str = "PATCH") -> tuple[int, str]:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name},
            "spec": {"holderIdentity": "agent"},
        }
        path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"
        return await self.send(method, path if method == "POST" else f"{path}/{name}", lease)


def edge_node(name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    plain = {"apiVersion": API_VERSION, "kind": "EdgeNode", "metadata": {"name": name}}
    return plain if spec is None else plain | {"spec": spec}


@dataclass
class Cluster:
    """A cluster with the agent's rights, and two nodes."""

    api: ApiServer
    address: str
    ca: str
    clients: AsyncExitStack

    async def agent_on(self, node: str | None) -> Agent:
        """Return what an agent can do whose pod runs on ``node``; without one, whose token is bound to nothing."""
        asked: dict[str, Any] = {"expirationSeconds": 600}
        if node is not None:
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"agent-{node}", "namespace": SYSTEM},
                "spec": {
                    "serviceAccountName": ACCOUNT,
                    "nodeName": node,
                    "containers": [{"name": "agent", "image": "agent"}],
                    "tolerations": [{"operator": "Exists"}],
                },
            }
            made = await self.api.apply(POD, pod, manager="tests")
            meta = made["metadata"]
            asked["boundObjectRef"] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": meta["name"],
                "uid": meta["uid"],
            }
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": SYSTEM},
            "spec": asked,
        }
        tokens = Kind("v1", "TokenRequest", f"serviceaccounts/{ACCOUNT}/token")
        answer = await self.api.create(tokens, request)
        client = httpx.AsyncClient(
            base_url=self.address,
            verify=ssl.create_default_context(cafile=self.ca),
            headers={"Authorization": f"Bearer {answer['status']['token']}"},
            trust_env=False,
        )
        return Agent(await self.clients.enter_async_context(client))


@pytest.fixture
async def cluster(api: ApiServer) -> AsyncIterator[Cluster]:
    await api.apply(
        NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}, manager="tests"
    )
    made: list[tuple[Kind, dict[str, Any]]] = []
    for document in of_the_agent():
        kind = CHART_KINDS[document["kind"]]
        made.append((kind, await api.apply(kind, document, manager="tests")))
    for name in (HERE, THERE):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        made.append((NODE, await api.apply(NODE, node, manager="tests")))
    credentials = await api.credentials()
    assert credentials.ca_file is not None
    async with AsyncExitStack() as clients:
        ours = Cluster(api, credentials.server, credentials.ca_file, clients)
        agent = await ours.agent_on(HERE)

        async def in_force() -> bool:
            status, message = await agent.create(THERE, dryRun="All")
            return status in {403, 422} and "may write edgenodes" in message

        await until(in_force, "the admission policy is in force")
        yield ours
    for name in (HERE, THERE):
        if (left := await api.get(EDGE_NODE, None, name)) is not None:
            await api.delete(EDGE_NODE, None, name, uid=left["metadata"]["uid"])
    for kind, live in made:
        meta = live["metadata"]
        await api.delete(kind, meta.get("namespace"), meta["name"], uid=meta["uid"])
    namespace = await api.get(NAMESPACE, None, SYSTEM)
    assert namespace is not None
    await api.delete(NAMESPACE, None, SYSTEM, uid=namespace["metadata"]["uid"])


async def test_an_agent_is_held_to_its_own_node(cluster: Cluster) -> None:
    agent, other = await cluster.agent_on(HERE), await cluster.agent_on(THERE)

    # Its own: made empty, reported, its Lease renewed.
    assert (await agent.create(HERE, {"models": [ENTRY]}))[1].endswith("the operator's to say")
    assert (await agent.create(HERE, {"rateLimit": 4096}))[0] in {403, 422}
    assert (await agent.create(HERE, {"models": [], "policies": []}, dryRun="All"))[0] == 201
    assert (await agent.create(HERE, {}, dryRun="All"))[0] == 201
    assert (await agent.create(HERE))[0] == 201
    assert (await agent.report(HERE))[0] == 200
    assert (await agent.beat(LEASE_PREFIX + HERE, "POST"))[0] == 201
    assert (await agent.beat(LEASE_PREFIX + HERE))[0] == 200
    assert (await agent.beat(LEASE_PREFIX + HERE, "GET"))[0] == 200

    # Another's, whether it is there or not.
    status, message = await agent.create(THERE)
    assert status in {403, 422}
    assert f"the agent of node {HERE} may write edgenodes {HERE} only, not {THERE}" in message
    assert (await other.create(THERE))[0] == 201
    assert (await other.report(THERE))[0] == 200
    status, message = await agent.report(THERE, "9.9.9")
    assert status in {403, 422}
    assert f"not {THERE}" in message
    live = await cluster.api.get(EDGE_NODE, None, THERE)
    assert live is not None
    assert live["status"]["agentVersion"] == "1.0.0"
    for name in (LEASE_PREFIX + THERE, "edgemodel-operator", HERE):
        status, message = await agent.beat(name)
        assert status in {403, 422}
        assert f"may write leases {LEASE_PREFIX}{HERE} only" in message

    # Its own spec is the operator's: no right to change it, and none by way of status.
    changed = edge_node(HERE, {"models": [ENTRY]})
    assert (await agent.send("PATCH", EDGE_NODE.path(None, HERE), changed))[0] == 403
    sneaked = changed | {"status": {"agentVersion": "2.0.0"}}
    await agent.send("PATCH", EDGE_NODE.path(None, HERE, subresource="status"), sneaked)
    live = await cluster.api.get(EDGE_NODE, None, HERE)
    assert live is not None
    assert "models" not in live.get("spec", {})

    # The operator's writes are not the policy's business.
    await cluster.api.apply(EDGE_NODE, changed, manager="edgemodel-operator")
    assert (await agent.report(HERE, "3.0.0"))[0] == 200  # with a spec that is not empty any more

    # What it has no right to at all.
    for path in (
        "/api/v1/secrets",
        f"/api/v1/namespaces/{SYSTEM}/secrets",
        "/apis/edgemodel.io/v1alpha1/edgemodels",
        "/api/v1/pods",
    ):
        assert (await agent.send("GET", path))[0] == 403
    assert (await agent.send("DELETE", EDGE_NODE.path(None, HERE)))[0] == 403

    # A token of the same account that no kubelet asked for.
    stray = await cluster.agent_on(None)
    for unbound in (
        stray.create(HERE),
        stray.report(HERE),
        stray.beat(LEASE_PREFIX + "x", "POST"),
        stray.create("x"),
    ):
        status, message = await unbound
        assert status in {403, 422}
        assert "bound to no node" in message
