"""Nodes get a version before any pod does, each knows only what it must, and a world at rest stays at rest."""

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgemodel.api.meta import CSI_DRIVER
from edgemodel.cluster.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    EDGE_MODEL,
    EDGE_NODE,
    EVENT,
    MODEL_TRUST_POLICY,
    NODE,
    POD,
    SECRET,
)
from tests.control_plane.conftest import Start
from tests.control_plane.fake_agent import HELD_BACK, FakeAgent, agents
from tests.control_plane.fake_kubelet import FakeKubelet
from tests.control_plane.operator_process import OperatorProcess
from tests.control_plane.site import Site
from tests.control_plane.test_idle import operator_writes, quiet
from tests.control_plane.waiting import until


@pytest.fixture
async def fleet(site: Site, kubelet: FakeKubelet) -> AsyncIterator[tuple[FakeAgent, ...]]:
    async with agents(site.api, site.namespace, f"{site.namespace}-a", f"{site.namespace}-b") as made:
        yield made


@pytest.fixture
async def at_work(site: Site, start: Start, fleet: tuple[FakeAgent, ...]) -> AsyncIterator[OperatorProcess]:
    async with start(nodeNamespace=site.namespace, nodeLookInterval=1) as process:
        yield process


async def hold(agent: FakeAgent, digest: str) -> dict[str, Any]:
    """Wait until an agent is told to hold a version; return the entry."""

    async def told() -> dict[str, Any] | None:
        return (await agent.wanted()).get(digest)

    return await until(told, f"{agent.node} is told to hold {digest}") or {}


async def test_nodes_have_a_version_before_any_pod_is_made_and_pods_mount_it(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...]
) -> None:
    for agent in fleet:
        agent.fates["detector"] = HELD_BACK
    digest = site.publish("1.0.0")
    await site.policy()
    await site.apply()
    for agent in fleet:
        entry = await hold(agent, digest)
        assert (entry["namespace"], entry["name"], entry["role"]) == (site.namespace, "detector", "Candidate")
        assert entry["image"].endswith(f"@{digest}")
        assert entry["policies"] == [f"{site.namespace}-site"]
        (policy,) = (await agent.spec())["policies"]
        assert json.loads(policy["document"])["metadata"]["name"] == f"{site.namespace}-site"
    await site.becomes("ArtifactDelivered", "False", "Downloading")
    fleet[0].fates.clear()
    await site.becomes("ArtifactDelivered", "False", "Downloading")

    async def one_has_it() -> bool:
        return bool((await site.status()).get("nodes", {}).get("ready") == 1)

    await until(one_has_it, "status counts the first node")
    assert await site.deployments() == ()
    fleet[1].fates.clear()
    await site.serves(digest)
    (deployment,) = await site.deployments()
    pod = deployment["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if "csi" in volume]
    assert volume["csi"]["driver"] == CSI_DRIVER
    assert volume["csi"]["volumeAttributes"] == {"model": "detector", "digest": digest}
    assert "initContainers" not in pod
    assert (await site.condition("ArtifactDelivered"))[:2] == ("True", "Pulled")
    for agent in fleet:
        await becomes_active(agent, digest)
        live = await site.api.get(EDGE_NODE, None, agent.node)
        node = await site.api.get(NODE, None, agent.node)
        assert live is not None
        assert node is not None
        assert [it["uid"] for it in live["metadata"]["ownerReferences"]] == [node["metadata"]["uid"]]


async def becomes_active(agent: FakeAgent, digest: str) -> None:
    """Wait until an agent is told that a version is the one that serves."""

    async def active() -> bool:
        return bool((await agent.wanted()).get(digest, {}).get("role") == "Active")

    await until(active, f"{agent.node} is told that {digest} serves")


async def test_only_nodes_that_may_run_the_pods_are_told_and_a_deleted_model_goes_from_all(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...]
) -> None:
    digest = await site.serve(podTemplate={"nodeSelector": {"kubernetes.io/hostname": fleet[1].node}})
    assert await fleet[0].wanted() == {}
    assert (await site.status())["nodes"]["total"] == 1
    await site.apply(suspend=True, podTemplate={"nodeSelector": {"kubernetes.io/hostname": fleet[1].node}})
    await site.becomes("Ready", "True")
    assert set(await fleet[1].wanted()) == {digest}
    await site.delete()

    async def left() -> object:
        spec = await fleet[1].spec()
        return spec.get("models") or spec.get("policies")

    async def nothing_left() -> bool:
        return not await left()

    try:
        await until(nothing_left, "the entries vanish", seconds=20)
    except AssertionError as error:
        raise AssertionError(f"{error}: {await left()}") from None


async def test_pull_secrets_arrive_sealed_and_nowhere_else(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...]
) -> None:
    password = "swordfish-and-more"
    digest = site.publish("1.0.0")
    await site.policy()
    await site.pull_secret("pull", "edge", password)
    await site.apply(pullSecrets=[{"name": "pull"}])
    await site.serves(digest)
    for agent in fleet:
        (document,) = await agent.opened(digest)
        assert json.loads(document)["auths"][site.registry.host]["password"] == password
    secret = await site.api.get(SECRET, site.namespace, "pull")
    assert secret is not None
    forms = (
        password,
        secret["data"][".dockerconfigjson"],
        base64.b64encode(f"edge:{password}".encode()).decode(),
    )
    shown = [at_work.log.read_text()]
    for kind, namespace in (
        (EDGE_MODEL, site.namespace),
        (EDGE_NODE, None),
        (MODEL_TRUST_POLICY, None),
        (DEPLOYMENT, site.namespace),
        (CONFIG_MAP, site.namespace),
        (POD, site.namespace),
        (EVENT, site.namespace),
        (EVENT, "default"),
    ):
        shown.append(json.dumps(await site.api.list(kind, namespace)))
    for form in forms:
        for text in shown:
            assert form not in text
    before = {agent.node: (await agent.wanted())[digest]["sealedPullSecrets"] for agent in fleet}
    await site.pull_secret("pull", "edge", "another")
    await site.apply(pullSecrets=[{"name": "pull"}], replicas=2)

    async def sealed_anew() -> bool:
        now = [(await agent.wanted())[digest]["sealedPullSecrets"] for agent in fleet]
        return not set(now) & set(before.values())

    await until(sealed_anew, "the new password is sealed")
    (document,) = await fleet[0].opened(digest)
    assert json.loads(document)["auths"][site.registry.host]["password"] == "another"


async def test_entries_of_somebody_else_are_taken_out_of_an_edge_node(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...]
) -> None:
    digest = await site.serve()
    foreign = {
        "namespace": "kube-system",
        "name": "stowaway",
        "digest": "sha256:" + "0" * 64,
        "image": "elsewhere.local/m@sha256:" + "0" * 64,
        "role": "Active",
    }
    manifest = {
        "apiVersion": "edgemodel.io/v1alpha1",
        "kind": "EdgeNode",
        "metadata": {"name": fleet[0].node},
        "spec": {"models": [foreign], "rateLimit": 7},
    }
    await site.api.apply(EDGE_NODE, manifest, manager="somebody")

    async def clean() -> bool:
        spec = await fleet[0].spec()
        return set(await fleet[0].wanted()) == {digest} and "rateLimit" not in spec

    await until(clean, "the stowaway is put ashore")
    second = site.publish("2.0.0")
    await site.serves(second)
    live = await site.api.get(EDGE_NODE, None, fleet[0].node)
    assert live is not None
    writers = {
        (it["manager"], it["operation"])
        for it in live["metadata"]["managedFields"]
        if "subresource" not in it
    }
    assert ("edgemodel-operator", "Apply") in writers
    assert ("edgemodel-operator", "Update") not in writers, "it would keep what the next apply leaves out"


@pytest.mark.parametrize("after", ["told", "delivered"])
async def test_an_operator_killed_between_nodes_and_pods_is_continued(
    site: Site, start: Start, fleet: tuple[FakeAgent, ...], after: str
) -> None:
    settings = {"nodeNamespace": site.namespace, "nodeLookInterval": 1}
    for agent in fleet:
        agent.fates["detector"] = HELD_BACK
    digest = site.publish("1.0.0")
    await site.policy()
    async with start(**settings) as operator:
        await site.apply()
        for agent in fleet:
            await hold(agent, digest)
        if after == "delivered":
            fleet[0].fates.clear()
        await operator.stop(signal.SIGKILL)
    for agent in fleet:
        agent.fates.clear()
    async with start(**settings):
        await site.serves(digest)


@pytest.mark.timeout(240)
async def test_a_minute_of_heartbeats_costs_no_write(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...], kubeconfig: Path
) -> None:
    digest = site.publish("1.0.0")
    await site.policy()
    await site.pull_secret("pull", "edge", "password")
    names = [f"detector-{number}" for number in range(10)]
    for name in names:
        await site.apply(name, pullSecrets=[{"name": "pull"}], pollInterval="5s")
    for name in names:
        await site.serves(digest, name, seconds=90)
    await quiet(kubeconfig)
    writes = operator_writes(kubeconfig)
    passes = await at_work.metric("edgemodel_reconcile_total")
    await asyncio.sleep(60)  # the very thing that is asked: what a minute costs
    assert operator_writes(kubeconfig) == writes
    assert await at_work.metric("edgemodel_reconcile_total") >= passes + 50
    assert await at_work.metric("edgemodel_nodes", state="online") == len(fleet)
