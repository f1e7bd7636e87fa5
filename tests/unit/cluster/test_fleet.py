"""What is known of nodes: read once for many passes, by the API server's clock, and never of another machine."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.fleet import LONGEST_PATIENCE, PATIENCE, Fleet
from edgemodel.errors import Transient
from edgemodel.reconcile.observed import LiveNode
from tests.simulators.apiserver import ApiServerSimulator, Fault

NODE, EDGE_NODE = "/api/v1/nodes/n1", "/apis/edgemodel.io/v1alpha1/edgenodes/n1"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/system/leases/edgenode-n1"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def written(at: str, manager: str = "edgemodel-node", **more: str) -> dict[str, Any]:
    return {"managedFields": [{"manager": manager, "time": at, **more}]}


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def fleet(server: ApiServerSimulator, api: ApiServer, clock: list[float]) -> Fleet:
    images = [{"names": ["image" * 10]}] * 50
    server.put(
        NODE, {"metadata": written("2026-01-01T00:00:00Z"), "status": {"images": images, "conditions": []}}
    )
    server.put(EDGE_NODE, {"spec": {}})
    return Fleet(api, lease_namespace="system", clock=lambda: clock[0], wall=lambda: NOW)


async def only(fleet: Fleet) -> LiveNode:
    (node,) = await fleet.read()
    return node


def reads(server: ApiServerSimulator) -> int:
    return len(server.seen)


async def test_passes_that_come_together_cost_one_list_of_each_kind(
    server: ApiServerSimulator, fleet: Fleet, clock: list[float]
) -> None:
    await asyncio.gather(*(fleet.read() for _ in range(100)))
    assert reads(server) == 3
    clock[0] = 9.0
    await fleet.read()
    assert reads(server) == 3
    clock[0] = 10.0
    await fleet.read()
    assert reads(server) == 5, "nodes and EdgeNodes again, Leases not yet"


@pytest.mark.parametrize(
    ("told", "path"),
    [(Fleet.nodes_changed, NODE), (Fleet.edge_nodes_changed, EDGE_NODE), (Fleet.look, LEASE)],
)
async def test_what_an_event_told_of_is_read_anew_and_nothing_else(
    server: ApiServerSimulator, fleet: Fleet, told: Callable[[Fleet], Any], path: str
) -> None:
    await fleet.read()
    before = reads(server)
    waiting = told(fleet)
    if waiting is not None:
        await waiting
    await fleet.read()
    assert [request.path for request in server.seen[before:]] == [path.rpartition("/")[0]]


async def test_a_node_carries_what_is_asked_for_and_no_more(fleet: Fleet) -> None:
    node = (await only(fleet)).node
    assert "images" not in node["status"]
    assert "managedFields" not in node["metadata"]
    assert (node["apiVersion"], node["kind"]) == ("v1", "Node")


async def test_a_node_is_heard_of_when_the_api_server_noted_a_beat_whatever_the_nodes_clock_says(
    server: ApiServerSimulator, fleet: Fleet
) -> None:
    for renewed in ("1996-01-01T00:00:00.000000Z", "2056-01-01T00:00:00.000000Z"):
        server.put(LEASE, {"metadata": written("2026-06-01T11:59:00Z"), "spec": {"renewTime": renewed}})
        (node,) = await fleet.look()
        assert node.heard == datetime(2026, 6, 1, 11, 59, tzinfo=UTC)


async def test_without_a_note_its_own_word_counts_unless_it_lies_ahead(
    server: ApiServerSimulator, fleet: Fleet
) -> None:
    server.put(LEASE, {"spec": {"renewTime": "2026-06-01T11:58:00.000000Z"}})
    assert (await only(fleet)).heard == datetime(2026, 6, 1, 11, 58, tzinfo=UTC)
    server.put(LEASE, {"spec": {"renewTime": "2056-06-01T11:58:00.000000Z"}})
    (node,) = await fleet.look()
    assert node.heard is None


async def test_a_status_written_by_the_agent_is_a_sign_of_life_and_one_by_others_is_none(
    server: ApiServerSimulator, fleet: Fleet
) -> None:
    server.put(EDGE_NODE, {"metadata": written("2026-06-01T11:50:00Z", "kubectl", subresource="status")})
    assert (await only(fleet)).heard is None
    server.put(EDGE_NODE, {"metadata": written("2026-06-01T11:51:00Z", subresource="status")})
    fleet.edge_nodes_changed()
    assert (await only(fleet)).heard == datetime(2026, 6, 1, 11, 51, tzinfo=UTC)


async def test_an_api_server_whose_clock_is_ahead_makes_nobody_heard_of_in_the_future(
    server: ApiServerSimulator, fleet: Fleet
) -> None:
    server.put(LEASE, {"metadata": written("2026-06-01T12:00:30Z")})
    assert (await only(fleet)).heard == NOW


@pytest.mark.parametrize(
    ("said", "patience"),
    [(None, PATIENCE), (15, 15.0), (10**12, LONGEST_PATIENCE), ("soon", PATIENCE), ([1], PATIENCE)],
)
async def test_how_long_it_may_be_silent_is_told_by_its_lease(
    server: ApiServerSimulator, fleet: Fleet, said: object, patience: float
) -> None:
    server.put(LEASE, {"spec": {"leaseDurationSeconds": said}})
    assert (await only(fleet)).patience == patience


async def test_an_edge_node_of_a_machine_that_had_this_name_before_is_none(
    server: ApiServerSimulator, fleet: Fleet
) -> None:
    owner = {"kind": "Node", "name": "n1", "uid": server.objects[NODE]["metadata"]["uid"]}
    server.put(EDGE_NODE, {"metadata": {"ownerReferences": [owner]}})
    assert (await only(fleet)).edge_node is not None
    server.put(EDGE_NODE, {"metadata": {"ownerReferences": [{**owner, "uid": "before"}]}})
    fleet.edge_nodes_changed()
    node = await only(fleet)
    assert node.edge_node is None
    assert node.heard is None


async def test_leases_that_are_no_agents_say_nothing(server: ApiServerSimulator, fleet: Fleet) -> None:
    server.put(LEASE.replace("edgenode-n1", "n1"), {"metadata": written("2026-06-01T11:59:00Z")})
    server.put(LEASE.replace("system", "other"), {"metadata": written("2026-06-01T11:59:00Z")})
    assert (await only(fleet)).heard is None


async def test_what_cannot_be_read_is_an_error(server: ApiServerSimulator, fleet: Fleet) -> None:
    server.faults.append(Fault(lambda _, path: path.endswith("/edgenodes"), status=500))
    with pytest.raises(Transient):
        await fleet.read()
    server.faults.clear()
    assert len(await fleet.read()) == 1
