"""Reading pods: what they say of themselves, what happens when they lie, hang or go, and when nothing is to be read."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from edgemodel.api.v1alpha1 import EdgeModelStatus, Slots
from edgemodel.controller.evidence import Evidence, Unreadable, read_golden
from edgemodel.rollout.evidence import GoldenResult
from tests.unit.controller.evidence_site import NEW, NOW, OLD, Site


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
