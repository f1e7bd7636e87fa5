"""Nodes that are silent hold up nobody and catch up; files that were altered cost the pods that read them."""

from typing import Any

import pytest

from edgemodel.cluster.kinds import NODE, POD
from tests.control_plane.fake_agent import HELD_BACK, SILENCE, FakeAgent
from tests.control_plane.operator_process import OperatorProcess
from tests.control_plane.site import Site
from tests.control_plane.test_node_delivery import at_work, fleet, hold
from tests.control_plane.waiting import until

__all__ = ["at_work", "fleet"]

ALTERED = {"state": "Failed", "reason": "TamperDetected", "message": "model.onnx is not what was verified"}


async def test_a_node_that_is_offline_holds_up_nobody_and_catches_up(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...]
) -> None:
    await site.serve()
    fleet[1].alive = False
    message = await site.becomes("Degraded", "True", "SomeNodesOffline", seconds=4 * SILENCE)
    assert fleet[1].node in message
    second = site.publish("2.0.0")
    await site.serves(second)
    status = await site.status()
    assert (status["nodes"]["total"], status["nodes"]["offline"]) == (2, 1)
    (gone,) = [it for it in status["nodeStatuses"] if it["state"] == "Offline"]
    assert gone["node"] == fleet[1].node
    assert gone["lastSeen"]
    assert second in await fleet[1].wanted(), "it is told even so, and finds it on its return"
    assert await at_work.metric("edgemodel_nodes", state="offline") == 1
    fleet[1].alive = True
    await site.becomes("Degraded", "False")

    async def caught_up() -> bool:
        return bool((await site.status())["nodes"]["ready"] == 2)

    await until(caught_up, "it has caught up")


async def test_when_no_node_is_heard_of_status_says_as_of_when_and_serving_goes_on(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...]
) -> None:
    first = await site.serve()
    for agent in fleet:
        agent.alive = False
    message = await site.becomes("ArtifactDelivered", "Unknown", "NodesOffline", seconds=4 * SILENCE)
    assert "last heard of at 20" in message
    assert (await site.condition("Ready"))[:2] == ("True", "Serving")
    second = site.publish("2.0.0")
    await hold(fleet[0], second)
    (deployment,) = await site.deployments()
    assert deployment["metadata"]["annotations"]["edgemodel.io/image"].endswith(f"@{first}")
    for agent in fleet:
        agent.alive = True
    await site.serves(second)


async def test_a_node_whose_clock_is_years_off_is_heard_of_all_the_same(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...]
) -> None:
    fleet[0].years_off, fleet[1].years_off = -30, 30
    await site.serve()
    assert await at_work.metric("edgemodel_nodes", state="online") == 2
    fleet[1].alive = False
    await site.becomes("Degraded", "True", "SomeNodesOffline", seconds=4 * SILENCE)


async def test_pods_that_read_altered_files_are_moved_and_serve_again_once_they_are_whole(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...]
) -> None:
    digest = await site.serve()
    (pod,) = await site.api.list(POD, site.namespace)
    (there,) = [agent for agent in fleet if agent.node == pod["spec"]["nodeName"]]
    there.fates["detector"] = ALTERED
    await site.becomes("Degraded", "True", "IntegrityFailed")

    async def gone() -> bool:
        live = await site.api.get(POD, site.namespace, pod["metadata"]["name"])
        return live is None or live["metadata"]["uid"] != pod["metadata"]["uid"]

    await until(gone, "the pod is evicted")
    await until(lambda: site.events("TamperDetected"), "it is told")
    await until(lambda: site.events("PodEvicted"), "so is the eviction")
    assert await at_work.metric("edgemodel_pod_evictions_total", result="evicted") >= 1
    there.fates.clear()
    await site.becomes("Degraded", "False")
    await site.serves(digest)


async def test_a_node_that_goes_and_one_that_comes_are_noticed(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...]
) -> None:
    await site.serve()
    fleet[1].fates["detector"] = HELD_BACK
    patch = {"metadata": {"labels": {"site": "north"}}}
    await site.api.merge(NODE, None, fleet[0].node, patch)
    await site.apply(podTemplate={"nodeSelector": {"site": "north"}})

    async def counts(total: int, why: str) -> None:
        async def counted() -> bool:
            return bool((await site.status())["nodes"]["total"] == total)

        await until(counted, why)

    await counts(1, "one node fits")
    await site.api.merge(NODE, None, fleet[1].node, patch)
    await counts(2, "the other fits by its new label")


@pytest.mark.parametrize("mode", ["Pod", None])
async def test_without_agents_pods_fetch_for_themselves(
    site: Site, at_work: OperatorProcess, fleet: tuple[FakeAgent, ...], mode: str | None
) -> None:
    if mode is None:
        for agent in fleet:
            agent.alive = False
            await agent.forget()
    digest = site.publish("1.0.0")
    await site.policy()
    spec: dict[str, Any] = {"delivery": mode} if mode else {}
    await site.apply(**spec)
    await site.serves(digest)
    (deployment,) = await site.deployments()
    assert [it["name"] for it in deployment["spec"]["template"]["spec"]["initContainers"]] == ["fetch"]
    if mode:
        assert await fleet[0].wanted() == {}
