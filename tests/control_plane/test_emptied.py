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
        await site.delete()

        async def nothing() -> bool:
            specs = [await agent.spec() for agent in fleet]
            return not any(spec.get("models") or spec.get("policies") for spec in specs)

        await until(nothing, "nodes are told of nothing any more", seconds=10)
        # Once more, now that others were seen to write these lists.
        await site.apply()
        await site.serves(digest)
        await until(lambda: told([policy]), "nodes are told of it again", seconds=10)
        await site.remove_policy()
        await until(lambda: told([]), "no node judges by the policy any more", seconds=5)
        await site.delete()
        await until(nothing, "nodes are told of nothing any more", seconds=10)


async def test_the_api_server_refuses_what_became_empty_and_takes_it_left_out(site: Site) -> None:
    node = f"{site.namespace}-alone"
    edge_node = {"apiVersion": API_VERSION, "kind": "EdgeNode", "metadata": {"name": node}}
    made = await site.api.create(EDGE_NODE, edge_node)

    async def apply(**status: Any) -> dict[str, Any]:
        written = {**edge_node, "status": {"agentVersion": "1", **status}}
        live = await site.api.apply(EDGE_NODE, written, manager=NODE_MANAGER, subresource="status")
        return dict(live["status"])

    try:
        assert await apply(capabilities={"architecture": "amd64"})
        with pytest.raises(Rejected, match="null"):
            await apply(capabilities={})
        assert "capabilities" not in await apply(**without_empty({"capabilities": {}}))
    finally:
        await site.api.delete(EDGE_NODE, None, node, uid=made["metadata"]["uid"])
