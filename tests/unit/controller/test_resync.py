"""The round over all models, and how a blind watch shows."""

from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client.configuration import Configuration

from edgemodel.cluster.client import ApiServer
from edgemodel.controller.resync import Resync
from edgemodel.controller.sightings import Key, Sightings
from edgemodel.controller.workqueue import WorkQueue
from tests.simulators.apiserver import ApiServerSimulator

PATH = "/apis/edgemodel.io/v1alpha1/namespaces/vision/edgemodels/detector"
KEY = Key("EdgeModel", "vision", "detector")


class Bench:
    def __init__(self, server: ApiServerSimulator, api: ApiServer) -> None:
        self.server = server
        self.queue: WorkQueue[Key] = WorkQueue()
        self.sightings = Sightings(self.queue)
        self.resync = Resync(api, self.queue, self.sightings, namespaces=(), interval=0.0, grace=0.01)

    def shown(self) -> None:
        """Let the watch show what is there."""
        self.sightings.model("MODIFIED", self.server.objects[PATH]["metadata"])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with ApiServerSimulator().running() as server, ApiServer(Configuration(host=server.url)) as api:
        server.put(PATH, {"kind": "EdgeModel"})
        bench = Bench(server, api)
        yield bench
        await bench.queue.stop(0.1)


async def test_a_round_plans_a_pass_for_every_model_and_writes_nothing(bench: Bench) -> None:
    bench.shown()
    await bench.resync.round()
    assert bench.resync.blind is None
    assert KEY in bench.queue._timers
    assert bench.server.writes == []


async def test_a_round_plans_a_pass_for_every_policy_whose_key_secret_may_have_come(bench: Bench) -> None:
    bench.shown()
    policy = Key("ModelTrustPolicy", "", "site")
    bench.sightings.policy("ADDED", {"name": "site", "generation": 1, "resourceVersion": "1"})
    bench.queue._ready.clear()
    bench.queue._queued.clear()
    await bench.resync.round()
    assert policy in bench.queue._timers


async def test_a_watch_that_shows_nothing_is_blind(bench: Bench) -> None:
    await bench.resync.round()
    assert bench.resync.blind is not None
    assert "vision/detector" in bench.resync.blind


async def test_a_watch_that_shows_no_change_any_more_is_blind(bench: Bench) -> None:
    bench.shown()
    bench.server.put(PATH, {"kind": "EdgeModel", "spec": {"replicas": 2}})
    await bench.resync.round()
    assert bench.resync.blind is not None


async def test_a_watch_that_catches_up_in_time_is_not(bench: Bench) -> None:
    listed = bench.sightings.behind

    def caught_up(now: dict[Key, str]) -> frozenset[tuple[Key, str]]:
        suspects = listed(now)
        bench.shown()
        return suspects

    bench.sightings.behind = caught_up  # type: ignore[method-assign,assignment]
    await bench.resync.round()
    assert bench.resync.blind is None


async def test_a_busy_object_that_changes_faster_than_the_watch_is_no_sign_of_blindness(bench: Bench) -> None:
    lists = 0

    def changing(method: str, path: str) -> bool:
        nonlocal lists
        lists += 1
        bench.server.put(PATH, {"kind": "EdgeModel", "spec": {"replicas": lists}})
        return False

    from tests.simulators.apiserver import Fault

    bench.server.faults.append(Fault(changing))
    await bench.resync.round()
    assert lists == 2
    assert bench.resync.blind is None


async def test_a_deletion_that_went_unnoticed_is_noticed(bench: Bench) -> None:
    bench.shown()
    del bench.server.objects[PATH]
    await bench.resync.round()
    assert list(bench.sightings.models) == []
    assert len(bench.queue) == 1
