"""A node that falls silent, or speaks again, has models looked at once; peace costs one list a round and no pass."""

from datetime import UTC, datetime, timedelta

import pytest

from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.fleet import Fleet
from edgemodel.controller.heartbeats import Heartbeats
from edgemodel.controller.metrics import Metrics
from edgemodel.controller.node_sightings import NodeSightings
from edgemodel.controller.sightings import Key, Sightings
from edgemodel.controller.workqueue import WorkQueue
from edgemodel.errors import Transient
from tests.simulators.apiserver import ApiServerSimulator, Fault

LEASE = "/apis/coordination.k8s.io/v1/namespaces/system/leases/edgenode-n1"


class Queue(WorkQueue[Key]):
    """Counts what is asked for."""

    asked = 0

    def add_after(self, key: Key, seconds: float) -> None:
        self.asked += 1


class Bench:
    """Three nodes: one with a live agent, one whose agent never spoke, one without."""

    def __init__(self, server: ApiServerSimulator, api: ApiServer) -> None:
        self.server = server
        self.now = datetime(2026, 6, 1, 12, tzinfo=UTC)
        self.queue = Queue()
        sightings = Sightings(self.queue)
        sightings.model(None, {"namespace": "vision", "name": "detector", "generation": 1})
        self.metrics = Metrics(depth=lambda: 0)
        fleet = Fleet(api, lease_namespace="system", wall=lambda: self.now)
        nodes = NodeSightings(
            self.queue,
            sightings,
            nodes_changed=fleet.nodes_changed,
            edge_nodes_changed=fleet.edge_nodes_changed,
            models_changed=lambda: None,
        )
        self.beats = Heartbeats(fleet, nodes, self.metrics, interval=30, clock=lambda: self.now)
        for name in ("n1", "n2", "n3"):
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            server.put(f"/api/v1/nodes/{name}", {"status": ready})
        for name in ("n1", "n2"):
            server.put(f"/apis/edgemodel.io/v1alpha1/edgenodes/{name}", {})
        self.beat()

    def beat(self) -> None:
        noted = {"managedFields": [{"manager": "edgemodel-node", "time": self.now.isoformat()}]}
        self.server.put(LEASE, {"metadata": noted, "spec": {"leaseDurationSeconds": 180}})

    async def round(self, seconds: float) -> int:
        self.now += timedelta(seconds=seconds)
        before = self.queue.asked
        await self.beats.round()
        return self.queue.asked - before

    def counted(self) -> dict[str, float | None]:
        return {
            state: self.metrics.registry.get_sample_value("edgemodel_nodes", {"state": state})
            for state in ("online", "offline", "without_agent")
        }


@pytest.fixture
async def bench(served: tuple[ApiServerSimulator, ApiServer]) -> Bench:
    return Bench(*served)


async def test_the_first_round_takes_note_and_no_more(bench: Bench) -> None:
    assert await bench.round(0) == 0
    assert bench.counted() == {"online": 1, "offline": 1, "without_agent": 1}


async def test_after_three_missed_beats_models_are_looked_at_once_and_again_on_its_return(
    bench: Bench,
) -> None:
    await bench.round(0)
    assert await bench.round(180) == 0
    assert await bench.round(1) == 1
    assert bench.counted()["offline"] == 2
    assert await bench.round(30) == 0
    bench.beat()
    assert await bench.round(0) == 1
    assert bench.counted()["online"] == 1


async def test_a_node_that_beats_costs_one_list_a_round_and_no_pass(bench: Bench) -> None:
    await bench.round(0)
    before = len(bench.server.seen)
    for _ in range(5):
        bench.beat()
        assert await bench.round(1) == 0
    leases = [request.path for request in bench.server.seen[before:]]
    assert leases == [LEASE.rpartition("/")[0]] * 5
    assert bench.server.writes == []


async def test_a_failing_api_server_makes_nobody_offline(bench: Bench) -> None:
    await bench.round(0)
    bench.server.faults.append(Fault(lambda _, path: path.endswith("/leases"), status=500, times=1))
    with pytest.raises(Transient):
        await bench.round(10)
    assert await bench.round(10) == 0
    assert bench.counted()["online"] == 1
