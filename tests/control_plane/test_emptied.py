"""What loses its last entry goes from objects on a real API server, and at once where nodes wait for it."""

from typing import Any

import pytest

from edgemodel.api.applied import without_empty
from edgemodel.api.meta import API_VERSION, NODE_MANAGER
from edgemodel.cluster.client import Rejected
from edgemodel.cluster.kinds import EDGE_NODE
from tests.control_plane.conftest import Start
from tests.control_plane.fake_agent import agents
from tests.control_plane.fake_kubelet import FakeKubelet
from tests.control_plane.site import Site
from tests.control_plane.waiting import until

HELD = {"namespace": "vision", "name": "detector", "digest": "sha256:" + "a" * 64, "state": "Ready"}


async def test_nodes_hear_at_once_of_a_policy_that_goes_and_comes_back(
    site: Site, start: Start, kubelet: FakeKubelet
) -> None:
    async with (
        agents(site.api, site.namespace, f"{site.namespace}-a", f"{site.namespace}-b") as fleet,
        start(nodeNamespace=site.namespace, nodeLookInterval=1),
    ):
        digest = await site.serve()

        async def told(named: list[str]) -> bool:
            for agent in fleet:
                spec = await agent.spec()
                if [it["name"] for it in spec.get("policies") or ()] != named:
                    return False
                if spec["models"][0].get("policies", []) != named:
                    return False
            return True

        assert set(await fleet[0].wanted()) == {digest}
        policy = f"{site.namespace}-site"
        assert await told([policy])
        await site.remove_policy()
        await until(lambda: told([]), "no node judges by the policy any more", seconds=5)
        await site.policy()
        await until(lambda: told([policy]), "every node judges by it again", seconds=5)
        await site.remove_policy()
        await site.delete()

        async def nothing() -> bool:
            return all([not await agent.wanted() for agent in fleet])

        await until(nothing, "nodes are told of nothing any more", seconds=10)


@pytest.mark.parametrize("before", [{"models": [HELD]}, {"capabilities": {"architecture": "amd64"}}])
async def test_the_api_server_refuses_what_became_empty_and_takes_it_left_out(
    site: Site, before: dict[str, Any]
) -> None:
    async with agents(site.api, site.namespace, f"{site.namespace}-a") as (agent,):
        agent.alive = False  # the test itself writes its status

        async def apply(status: dict[str, Any]) -> dict[str, Any]:
            edge_node = {
                "apiVersion": API_VERSION,
                "kind": "EdgeNode",
                "metadata": {"name": agent.node},
                "status": {"agentVersion": "1", **status},
            }
            live = await site.api.apply(EDGE_NODE, edge_node, manager=NODE_MANAGER, subresource="status")
            return dict(live["status"])

        (name,) = before
        assert (await apply(before))[name] == before[name]
        empty: Any = type(before[name])()
        with pytest.raises(Rejected, match="null"):
            await apply({name: empty})
        assert name not in await apply(without_empty({name: empty}))
