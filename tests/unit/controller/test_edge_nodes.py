"""A pass for one EdgeNode writes its spec and its owner once, and makes, steals or empties none."""

from typing import Any

import pytest

from edgemodel.artifact.keys import PrivateKey
from edgemodel.cluster.client import ApiServer, Conflict
from edgemodel.cluster.fleet import Fleet
from edgemodel.cluster.placements import Placements
from edgemodel.controller.edge_nodes import EdgeNodes
from edgemodel.reconcile.observed import Settings
from tests.simulators.apiserver import ApiServerSimulator, Fault

OURS = "/apis/edgemodel.io/v1alpha1"
MODEL, EDGE_NODE = f"{OURS}/namespaces/vision/edgemodels/detector", f"{OURS}/edgenodes/n1"
NODE, POLICY = "/api/v1/nodes/n1", f"{OURS}/modeltrustpolicies/site"
DIGEST = "sha256:" + "a" * 64


class Bench:
    """One node, one model."""

    def __init__(self, server: ApiServerSimulator, api: ApiServer) -> None:
        self.server = server
        self.placements = Placements(api, namespaces=())
        fleet = Fleet(api, lease_namespace="system")
        self.passes = EdgeNodes(api, fleet, self.placements, Settings(server_image="s", node_image="n"))
        server.put("/api/v1/namespaces/vision", {})
        server.put(NODE, {})
        server.put(EDGE_NODE, {"spec": {}})
        self.model()

    def model(self, **spec: Any) -> None:
        slot = {"digest": DIGEST, "image": f"r.local/m@{DIGEST}"}
        status = {"slots": {"active": slot}, "nodes": {"total": 1}}
        self.server.put(MODEL, {"spec": {"image": "r.local/m:1", **spec}, "status": status})

    def policy(self) -> None:
        key = PrivateKey.generate().public.pem
        spec = {"match": {"images": ["r.local/**"]}, "authorities": [{"name": "key", "publicKey": key}]}
        self.server.put(POLICY, {"spec": spec})

    async def turn(self) -> bool:
        self.placements.changed()
        return await self.passes.update("n1")

    @property
    def live(self) -> dict[str, Any]:
        return self.server.objects[EDGE_NODE]

    def names(self) -> list[str]:
        return [entry["name"] for entry in self.live["spec"].get("models", ())]


@pytest.fixture
async def bench(served: tuple[ApiServerSimulator, ApiServer]) -> Bench:
    return Bench(*served)


async def test_the_spec_and_the_owner_are_written_once(bench: Bench) -> None:
    assert await bench.turn()
    assert bench.names() == ["detector"]
    (owner,) = bench.live["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "n1",
        "uid": bench.server.objects[NODE]["metadata"]["uid"],
    }
    (write,) = bench.server.writes
    assert (write.method, write.query["fieldManager"]) == ("PATCH", "edgemodel-operator")
    assert not await bench.turn()
    assert len(bench.server.writes) == 1


async def test_defaults_that_the_api_server_adds_are_no_difference(bench: Bench) -> None:
    await bench.turn()
    bench.live["spec"]["models"][0]["recheckInterval"] = "24h"
    bench.live["spec"]["somethingNew"] = 1
    assert not await bench.turn()


async def test_the_last_entry_goes_with_its_model(bench: Bench) -> None:
    await bench.turn()
    bench.server.remove(MODEL)
    assert await bench.turn()
    assert bench.names() == []
    assert not await bench.turn()


async def test_what_becomes_empty_is_taken_away_by_a_patch_that_says_nothing_else(bench: Bench) -> None:
    # Server-side apply of a list that loses its last entry may leave null, which the API server then refuses.
    bench.policy()
    await bench.turn()
    (entry,) = bench.live["spec"]["models"]
    assert (entry["policies"], len(bench.live["spec"]["policies"])) == (["site"], 1)
    bench.server.remove(POLICY)
    bench.server.seen.clear()
    await bench.turn()
    emptied, applied = bench.server.writes
    assert emptied.body["spec"] == {"policies": None}
    assert "policies" not in applied.body["spec"]["models"][0]
    bench.policy()
    await bench.turn()
    bench.server.remove(MODEL)
    bench.server.seen.clear()
    assert await bench.turn()
    (emptied,) = bench.server.writes
    assert emptied.body["spec"] == {"models": None, "policies": None}
    assert not await bench.turn()


async def test_the_spec_of_an_edge_node_that_is_new_is_written_though_it_is_empty(bench: Bench) -> None:
    # Its agent waits for the operator's word before it takes anything away.
    bench.server.remove(MODEL)
    assert await bench.turn()
    (write,) = bench.server.writes
    assert write.body["spec"] == {"models": [], "policies": []}


async def test_without_node_or_edge_node_nothing_is_made(bench: Bench) -> None:
    edge_node = bench.server.objects.pop(EDGE_NODE)
    assert not await bench.turn()
    bench.server.objects[EDGE_NODE] = edge_node
    del bench.server.objects[NODE]
    assert not await bench.turn()
    assert bench.server.writes == []


@pytest.mark.parametrize("path", [EDGE_NODE, NODE])
async def test_one_that_is_going_is_left_alone(bench: Bench, path: str) -> None:
    bench.server.objects[path]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not await bench.turn()
    assert bench.server.writes == []


async def test_one_that_goes_in_the_middle_is_not_made_again(bench: Bench) -> None:
    gone = bench.server.objects[EDGE_NODE]["metadata"]["uid"]
    bench.server.faults.append(
        Fault(
            lambda method, path: method == "PATCH" and path == EDGE_NODE, status=409, message="uid", times=1
        )
    )
    with pytest.raises(Conflict):
        await bench.turn()
    (write,) = bench.server.writes
    assert write.body["metadata"]["uid"] == gone


async def test_a_model_that_cannot_be_read_keeps_its_entries_and_policies(bench: Bench) -> None:
    await bench.turn()
    bench.live["spec"]["models"][0]["policies"] = ["site"]
    bench.live["spec"]["policies"] = [{"name": "site", "document": "{}"}]
    bench.model(replicas="many")
    assert not await bench.turn()
    assert bench.names() == ["detector"]
    assert bench.live["spec"]["policies"] == [{"name": "site", "document": "{}"}]
