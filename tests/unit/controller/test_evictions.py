"""Pods on altered files go: as a budget allows, for a minute; then in any case."""

import pytest

from edgemodel.cluster.client import ApiServer
from edgemodel.controller.evictions import AGAIN, PATIENCE, Evicted, Evictions
from edgemodel.controller.metrics import Metrics
from edgemodel.controller.sightings import Key
from edgemodel.reconcile.decision import PodRef
from tests.simulators.apiserver import ApiServerSimulator, Fault

KEY = Key("EdgeModel", "vision", "detector")
POD = "/api/v1/namespaces/vision/pods/p"


class Bench:
    """One pod, and a budget that may hold it back."""

    def __init__(self, server: ApiServerSimulator, api: ApiServer) -> None:
        self.server = server
        self.now = 0.0
        self.metrics = Metrics(depth=lambda: 0)
        self.evictions = Evictions(api, self.metrics, clock=lambda: self.now)
        self.uid = server.put(POD, {})["metadata"]["uid"]
        self.budget = Fault(
            lambda _, path: path.endswith("/eviction"), status=429, causes=["DisruptionBudget"]
        )

    async def tell(self) -> Evicted:
        return await self.evictions.carry_out(KEY, [PodRef("p", self.uid, "n1", "TamperDetected")])

    def counted(self, result: str) -> float | None:
        return self.metrics.registry.get_sample_value("edgemodel_pod_evictions_total", {"result": result})


@pytest.fixture
async def bench(served: tuple[ApiServerSimulator, ApiServer]) -> Bench:
    return Bench(*served)


async def test_a_pod_is_evicted_and_it_is_told(bench: Bench) -> None:
    done = await bench.tell()
    assert POD not in bench.server.objects
    (event,) = done.events
    assert (event.type, event.reason) == ("Warning", "PodEvicted")
    assert "Pod p on node n1" in event.message
    assert done.again is None
    assert [(it.method, it.path) for it in bench.server.writes] == [("POST", f"{POD}/eviction")]
    assert bench.counted("evicted") == 1


async def test_a_budget_holds_it_back_for_a_minute_and_no_longer(bench: Bench) -> None:
    bench.server.faults.append(bench.budget)
    for bench.now in (0.0, 30.0, PATIENCE - 1):
        done = await bench.tell()
        assert (done.events, done.again) == ((), AGAIN)
        assert POD in bench.server.objects
    bench.now = PATIENCE
    done = await bench.tell()
    assert POD not in bench.server.objects
    assert len(done.events) == 1
    assert (bench.counted("withheld"), bench.counted("deleted")) == (3, 1)


async def test_the_minute_begins_anew_for_another_pod_of_that_name(bench: Bench) -> None:
    bench.server.faults.append(bench.budget)
    await bench.tell()
    bench.now = PATIENCE
    bench.uid = "another"
    await bench.tell()
    assert POD in bench.server.objects
    assert bench.counted("deleted") is None


async def test_a_pod_that_came_instead_is_not_touched(bench: Bench) -> None:
    bench.uid = "the one before"
    await bench.tell()
    assert POD in bench.server.objects


@pytest.mark.parametrize("status", [403, 429, 500])
async def test_a_failure_deletes_nothing_raises_nothing_and_is_tried_again(bench: Bench, status: int) -> None:
    bench.server.faults.append(Fault(lambda _, path: path.endswith("/eviction"), status=status))
    for bench.now in (0.0, PATIENCE, 10 * PATIENCE):
        done = await bench.tell()
        assert (done.events, done.again) == ((), AGAIN)
    assert POD in bench.server.objects


async def test_nothing_to_evict_costs_nothing(bench: Bench) -> None:
    assert await bench.evictions.carry_out(KEY, []) == Evicted()
    assert bench.server.seen == []
