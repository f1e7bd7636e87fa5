"""Reading pods: what they say of themselves, what happens when they lie, hang or go, and when nothing is to be read."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from edgemodel.api.conditions import Reason
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import EdgeModel, EdgeModelStatus, Slot, Slots
from edgemodel.artifact.digest import Digest
from edgemodel.controller.evidence import Evidence, Unreadable, read_golden
from edgemodel.controller.sightings import Key
from edgemodel.controller.workqueue import WorkQueue
from edgemodel.gateway.shadow_comparison import Outcome
from edgemodel.gateway.shadow_metrics import ShadowMetrics, Trial
from edgemodel.reconcile.observed import GatewayPod, Observed, Settings, Unresolved
from edgemodel.rollout.evidence import CandidateEvidence, GoldenResult
from inference_server.metrics import Metrics

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
KEY = Key("EdgeModel", "vision", "detector")
PASSED = {"outcome": "Pass", "total": 2, "passed": 2, "failures": []}


@dataclass
class PodServer:
    """What listens at one address: the pages of an inference server, or whatever else a test wants."""

    version: str
    metrics: Metrics = field(default_factory=Metrics)
    golden: Any = field(default_factory=lambda: PASSED)
    page: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    asked: list[str] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, number: int, *, code: str = "200", seconds: float = 0.004) -> None:
        self.metrics.requests.labels("detector", self.version, "http", code).inc(number)
        for _ in range(number):
            self.metrics.request_duration.labels("detector", self.version, "http").observe(seconds)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.reached.set()
        if self.page is not None:
            return await self.page(request)
        if request.path == "/metrics":
            return web.Response(body=self.metrics.render())
        if self.golden is None:
            return web.Response(status=404)
        return web.Response(text=json.dumps(self.golden))


class GatewayServer(PodServer):
    """What listens at a gateway pod's address."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.registry = CollectorRegistry()
        self.shadow = ShadowMetrics(self.registry)
        self.trial = Trial("vision", "detector", str(NEW))
        self.shadow.follow([self.trial])
        self.page = self.write

    def count(self, outcome: Outcome, number: int = 1) -> None:
        for _ in range(number):
            self.shadow.count(self.trial, outcome)

    async def write(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=generate_latest(self.registry))


class Site:
    """One model whose pods are at 127.0.0.1, .2, .3 …, all at one port."""

    def __init__(self) -> None:
        self.servers: dict[str, PodServer] = {}
        self.pods: list[dict[str, Any]] = []
        self.gateways: list[GatewayPod] = []
        self.percent = 0
        self.port = 0
        self.queue: WorkQueue[Key] = WorkQueue()
        self.status = EdgeModelStatus(
            slots=Slots(
                active=Slot(digest=OLD, image=f"r.example/m@{OLD}", version="1"),
                candidate=Slot(digest=NEW, image=f"r.example/m@{NEW}", version="2"),
            ),
            rollout=RolloutStatus(step=1, steps=2, weight=10, step_since=NOW),
        )
        self.evidence = Evidence(self.queue, wall=lambda: NOW)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        return await self.servers[request.transport.get_extra_info("sockname")[0]].serve(request)

    def pod(self, name: str, version: str, *, ready: bool = True, **status: Any) -> PodServer:
        digest, address = (NEW if version == "2" else OLD), f"127.0.0.{len(self.pods) + 1}"
        server = {"name": "server", "state": {"running": {}}, "restartCount": 0}
        self.pods.append(
            {
                "metadata": {
                    "name": name,
                    "uid": f"uid-{name}",
                    "labels": {"edgemodel.io/digest": digest.short},
                },
                "spec": {},
                "status": {
                    "podIP": address,
                    "conditions": [{"type": "Ready", "status": str(ready)}],
                    "containerStatuses": [{**server, **status}],
                },
            }
        )
        self.servers[address] = PodServer(version)
        return self.servers[address]

    def move(self, step: int, weight: int) -> None:
        """Have the rollout at another step."""
        rollout = RolloutStatus(step=step, steps=2, weight=weight, step_since=NOW)
        self.status = self.status.model_copy(update={"rollout": rollout})

    def gateway(self, name: str) -> "GatewayServer":
        """Have one more pod of the gateway."""
        address = f"127.0.1.{len(self.gateways) + 1}"
        self.gateways.append(GatewayPod(name, f"uid-{name}", address, "node", ready=True))
        self.servers[address] = server = GatewayServer("")
        return server

    def observe(self) -> CandidateEvidence | None:
        meta = {"name": "detector", "namespace": "vision", "uid": "u"}
        spec = {"image": "r.example/m:1", "traffic": {"shadow": {"percent": self.percent}}}
        model = EdgeModel.model_validate({"metadata": meta, "spec": spec})
        return self.evidence.observe(
            Observed(
                model=model.model_copy(update={"status": self.status}),
                settings=Settings(server_image="s", node_image="n"),
                target=Unresolved(Reason.RECONCILING, ""),
                pods=tuple(self.pods),
                gateway=tuple(self.gateways) if self.percent else None,
            )
        )

    def seen(self) -> CandidateEvidence:
        found = self.observe()
        assert found is not None
        return found

    def passes(self) -> int:
        """Return how many passes are waiting, and forget them."""
        waiting = len(self.queue)
        self.queue = self.evidence._queue = WorkQueue()
        return waiting


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    for address in ("127.0.0.2", "127.0.0.3", "127.0.1.1", "127.0.1.2"):
        await web.TCPSite(runner, address, port).start()
    made.evidence = Evidence(made.queue, port=port, gateway_port=port, patience=0.5, wall=lambda: NOW)
    yield made
    await made.evidence.close()
    await runner.cleanup()


async def test_what_both_versions_answered_is_counted_and_a_pass_is_asked_for(site: Site) -> None:
    new, old = site.pod("new", "2"), site.pod("old", "1")
    new.answer(1000)
    found = site.seen()
    assert (found.digest, found.since, found.candidate.total.requests) == (NEW, NOW, 0)
    await site.evidence.round()
    new.answer(5)
    new.answer(1, code="500", seconds=0.3)
    new.answer(1, code="422")
    old.answer(90)
    site.passes()
    await site.evidence.round()
    assert site.passes() == 1
    found = site.seen()
    assert (found.candidate.total.requests, found.candidate.total.errors) == (7, 1)
    assert found.candidate.total.slower(0.25) == pytest.approx(1 / 7)
    assert found.active is not None
    assert found.active.total.requests == 90
    assert found.active.concurrent


async def test_a_pass_is_asked_for_when_a_verdict_changes_and_each_time_samples_have_doubled(
    site: Site,
) -> None:
    new, old = site.pod("new", "2"), site.pod("old", "1")
    site.observe()
    asked = []
    for number in (0, 40, 0, 5, 40, 10, 10, 100):
        new.answer(number)
        old.answer(9 * number)
        await site.evidence.round()
        asked.append(site.passes())
    # The first is for golden samples; 45 are fewer than twice 40; with 85 there are enough.
    assert asked == [1, 1, 0, 0, 1, 0, 0, 1]
    for _ in range(3):
        new.answer(30, code="500")
        await site.evidence.round()
        asked.append(site.passes())
    assert asked[-3:] == [1, 0, 0]


async def test_what_the_gateways_counted_of_copies_is_evidence(site: Site) -> None:
    site.percent = 20
    new = site.pod("new", "2")
    one, two = site.gateway("one"), site.gateway("two")
    site.move(1, 0)
    site.observe()
    await site.evidence.round()
    one.count("agree", 30)
    two.count("differ", 3)
    two.count("unanswered", 2)
    new.answer(33)
    site.passes()
    await site.evidence.round()
    assert site.passes() == 1
    found = site.seen()
    assert found.shadowed is not None
    assert found.shadowed.total.compared == 33
    assert found.shadowed.total.differ == 3
    assert (found.candidate.total.requests, found.candidate.total.errors) == (35, 2)
    two.page = hanging
    one.count("agree")
    await site.evidence.round()
    seen = site.seen().shadowed
    assert seen is not None
    assert (seen.total.agree, seen.total.differ) == (31, 3)
    # Of a step with all requests there are no copies, and none is asked for.
    site.move(2, 100)
    assert site.seen().shadowed is None
    asked = len(one.asked)
    await site.evidence.round()
    assert len(one.asked) == asked


async def test_without_copies_no_gateway_is_asked(site: Site) -> None:
    site.pod("new", "2")
    one = site.gateway("one")
    site.observe()
    await site.evidence.round()
    assert site.seen().shadowed is None
    assert one.asked == []


async def test_golden_samples_are_asked_for_once_of_each_pod_of_the_candidate(site: Site) -> None:
    new, other, old = site.pod("new", "2"), site.pod("other", "2"), site.pod("old", "1")
    failure = {"sample": "a", "output": "scores", "message": "0.4\u202e instead of 0.9"}
    other.golden = {"outcome": "Fail", "total": 2, "passed": 1, "failures": [failure]}
    site.observe()
    for _ in range(3):
        await site.evidence.round()
    assert site.seen().golden == (
        GoldenResult("new", "Pass"),
        GoldenResult("other", "Fail", "sample a, output scores, 0.4 instead of 0.9"),
    )
    assert site.passes() == 1
    asked = "/v2/models/detector/golden"
    assert [it.asked.count(asked) for it in (new, other, old)] == [1, 1, 0]
    site.pods = site.pods[1:]
    assert [result.pod for result in site.seen().golden] == ["other"]


async def test_a_server_that_knows_no_golden_samples_has_none(site: Site) -> None:
    site.pod("new", "2").golden = None
    site.observe()
    await site.evidence.round()
    assert [result.outcome for result in site.seen().golden] == ["Absent"]


async def test_pods_that_are_not_ready_or_go_are_not_asked(site: Site) -> None:
    new, late, going = site.pod("new", "2"), site.pod("late", "2", ready=False), site.pod("going", "1")
    site.pods[-1]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    site.observe()
    await site.evidence.round()
    assert new.asked
    assert late.asked == going.asked == []


async def test_without_a_candidate_nothing_is_asked_and_nothing_kept(site: Site) -> None:
    new = site.pod("new", "2")
    site.observe()
    await site.evidence.round()
    site.status = EdgeModelStatus(slots=Slots(active=site.status.slots.active))
    asked = len(new.asked)
    assert site.observe() is None
    await site.evidence.round()
    assert len(new.asked) == asked


async def test_a_candidate_without_pods_is_waited_for_without_asking_anyone(site: Site) -> None:
    old = site.pod("old", "1")
    site.observe()
    await site.evidence.round()
    assert old.asked == []


async def test_another_candidate_begins_anew(site: Site) -> None:
    new = site.pod("new", "2")
    site.observe()
    for _ in range(2):
        new.answer(10)
        await site.evidence.round()
    assert site.seen().candidate.total.requests == 10
    slots = site.status.slots
    site.status = site.status.model_copy(
        update={"slots": slots.model_copy(update={"candidate": slots.active})}
    )
    found = site.seen()
    assert (found.digest, found.candidate.total.requests, found.golden) == (OLD, 0, ())


async def test_a_model_that_is_gone_is_forgotten(site: Site) -> None:
    new = site.pod("new", "2")
    site.observe()
    site.evidence.forget("vision", "detector")
    await site.evidence.round()
    assert new.asked == []


async def test_an_end_of_a_server_shows_before_and_after_it_is_started_again(site: Site) -> None:
    site.pod("new", "2")
    site.observe()
    (server,) = site.pods[0]["status"]["containerStatuses"]
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    server["state"] = killed
    assert (site.seen().candidate.restarts, site.seen().candidate.out_of_memory) == (1, "new")
    server["state"], server["lastState"] = {"waiting": {"reason": "CrashLoopBackOff"}}, killed
    assert site.seen().candidate.restarts == 1
    server["state"], server["restartCount"] = {"running": {}}, 1
    assert (site.seen().candidate.restarts, site.seen().candidate.out_of_memory) == (1, "new")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(64):
        await response.write(b"inference_requests_total{} 1\n" * 3000)
    return response


async def hanging(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await asyncio.Event().wait()
    return response


async def elsewhere(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://127.0.0.2/metrics")


async def nonsense(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\xff\xfe inference_requests")


async def broken(_: web.Request) -> web.StreamResponse:
    return web.Response(
        status=500, text='inference_requests_total{model="detector",version="2",code="500"} 9'
    )


@pytest.mark.parametrize("page", [endless, elsewhere, nonsense, broken])
async def test_a_pod_that_answers_nonsense_is_as_one_that_does_not_answer(
    site: Site, page: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> None:
    new, other = site.pod("new", "2"), site.pod("other", "2")
    new.page = page
    site.observe()
    for _ in range(5):
        other.answer(10)
        await site.evidence.round()
    found = site.seen()
    assert found.candidate.total.requests >= 10
    assert found.candidate.total.errors == 0
    assert [result.pod for result in found.golden] == ["other"]


async def test_a_pod_that_hangs_holds_up_a_round_no_longer_than_it_may(site: Site) -> None:
    site.pod("new", "2").page = hanging
    site.observe()
    began = time.monotonic()
    await site.evidence.round()
    assert 0.4 < time.monotonic() - began < 1.5
    assert site.passes() == 0


async def test_a_pod_whose_address_is_none_is_not_asked(site: Site) -> None:
    site.pod("new", "2")
    for address in ("", None, "evil.example/x?", "127.0.0.1@evil.example"):
        site.pods[0]["status"]["podIP"] = address
        site.observe()
        await site.evidence.round()
    assert site.servers["127.0.0.1"].asked == []


async def test_rounds_are_made_while_there_is_a_candidate(site: Site) -> None:
    new = site.pod("new", "2")
    running = asyncio.create_task(site.evidence.run())
    await asyncio.sleep(0)
    assert new.asked == []
    site.observe()
    async with asyncio.timeout(1.5):
        await new.reached.wait()
    assert "/metrics" in new.asked
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"outcome": "Perfect"}',
        b'{"outcome": ["Pass"]}',
        b'{"outcome": "Pass", "outcome": "Fail"}',
    ],
)
def test_a_golden_result_that_cannot_be_is_none(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read_golden("p", body)


@pytest.mark.parametrize("failures", [None, [], [1], [{}], [{"sample": 3, "message": ["x"]}], {"a": 1}])
def test_a_failure_without_words_is_still_one(failures: Any) -> None:
    body = json.dumps({"outcome": "Fail", "failures": failures}).encode()
    assert read_golden("p", body) == GoldenResult("p", "Fail")
