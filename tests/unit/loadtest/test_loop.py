"""Loads on a server that misbehaves as it is told: what is counted, what is not, and who is charged for a stall."""

import asyncio
import sys
import time

import pytest

from edgemodel.loadtest.loop import Loop, measured
from edgemodel.loadtest.result import Closed, Extent, Open
from edgemodel.loadtest.target import Target
from tests.simulators.certificates import loopback_tls
from tests.simulators.model_server import ModelServer, answer

pytestmark = pytest.mark.timeout(20)


async def load(server, asked, extent, **target):
    found = Target.parse(server.url, **target)
    request = found.request("POST", "/v2/models/m/infer", b"{}")
    return await Loop(found, [request], asked, extent).run()


async def test_a_closed_loop_sends_so_many_and_no_more():
    async with ModelServer() as server:
        outcome = await load(server, Closed(4), Extent(0, 10, 100))
    assert len(server.bodies) == outcome.answered == outcome.latency.count == 100
    assert server.connections == 4
    assert not outcome.errors
    assert outcome.throughput > 10


async def test_a_closed_loop_ends_in_time():
    async with ModelServer() as server:
        began = time.perf_counter()
        outcome = await load(server, Closed(2), Extent(0.05, 0.2))
    assert 0.25 <= time.perf_counter() - began < 5
    assert outcome.seconds == pytest.approx(0.2)
    # What was sent before counts, if its answer came in time; what came too late does not.
    assert abs(outcome.latency.count - outcome.answered) <= 2


async def test_the_warm_up_is_not_counted():
    async with ModelServer() as server:
        server.stalls = {0: 0.5}
        outcome = await load(server, Closed(1), Extent(0.3, 10, 20))
    assert len(server.bodies) > outcome.latency.count == 20
    assert outcome.latency.largest < 0.5


async def test_an_open_loop_keeps_its_rate():
    async with ModelServer() as server:
        outcome = await load(server, Open(200), Extent(0, 10, 100))
    assert outcome.answered == 100
    assert 0.45 <= outcome.seconds < 5
    assert outcome.latency.count == 100


async def test_random_arrivals_have_the_same_mean_rate():
    async with ModelServer() as server:
        outcome = await load(server, Open(400, random=True), Extent(0, 10, 200))
    assert outcome.answered == 200
    assert 0.3 <= outcome.seconds < 5


@pytest.mark.parametrize("connections", [1, 256])
async def test_a_stall_is_charged_for_everybody_whom_it_kept_waiting(connections):
    """Half a second at 200 requests a second is a hundred that wait, 0.25 s on average, also on one connection."""
    async with ModelServer() as server:
        server.stalls = {20: 0.5}
        outcome = await load(server, Open(200, connections), Extent(0, 10, 200))
    assert outcome.answered == 200
    assert outcome.latency.percentile(0.75) > 0.1
    assert outcome.latency.largest >= 0.5
    assert server.connections <= connections


async def test_a_closed_loop_sees_the_stall_once():
    async with ModelServer() as server:
        server.stalls = {20: 0.5}
        outcome = await load(server, Closed(1), Extent(0, 10, 200))
    assert outcome.latency.percentile(0.9) < 0.5 <= outcome.latency.largest


async def test_errors_are_counted_by_kind_with_the_words_of_the_first():
    def reply(number):
        if number % 10 == 3:
            return answer(b'{"error":"number %d"}' % number, "503 Service Unavailable")
        return None if number % 10 == 7 else answer()

    async with ModelServer(reply) as server:
        outcome = await load(server, Closed(1), Extent(0, 10, 50))
    assert outcome.errors == {"HTTP 503": 5, "connection": 5}
    assert outcome.answered == outcome.latency.count == 40
    assert outcome.examples == {"HTTP 503": '{"error":"number 3"}', "connection": "connection closed"}


async def test_a_server_may_close_after_each_answer():
    async with ModelServer(lambda _: answer(extra="Connection: close\r\n")) as server:
        outcome = await load(server, Closed(2), Extent(0, 10, 20))
    assert outcome.answered == 20
    assert server.connections == 20


async def test_no_answer_in_time_is_an_error_and_a_latency():
    async with ModelServer() as server:
        server.stalls = {0: 60.0}
        outcome = await load(server, Closed(2), Extent(0, 0.1, timeout=0.2))
    assert outcome.errors == {"timeout": 2}
    assert outcome.latency.count == 2
    assert outcome.percentiles["p50"] >= 0.2


async def test_what_found_no_connection_in_time_is_not_sent():
    async with ModelServer() as server:
        server.stalls = {0: 60.0}
        outcome = await load(server, Open(100, connections=1), Extent(0, 10, 50, timeout=0.2))
    assert outcome.errors == {"timeout": 50}
    assert len(server.bodies) < 10


async def test_nobody_there_is_no_flood_of_attempts():
    async with ModelServer() as server:
        pass
    outcome = await load(server, Closed(4), Extent(0, 0.3))
    assert set(outcome.errors) == {"connection"}
    assert outcome.errors.total() < 50
    assert "cannot connect" in outcome.examples["connection"]


async def test_rubbish_is_an_error():
    async with ModelServer(lambda _: b"rubbish\r\n\r\n") as server:
        outcome = await load(server, Closed(1), Extent(0, 10, 5))
    assert outcome.errors == {"connection": 5}
    assert "not an HTTP/1.1 answer" in outcome.examples["connection"]


async def test_tls_and_tokens(tmp_path):
    context, pem = loopback_tls(tmp_path)
    (tmp_path / "ca.pem").write_text(pem)
    async with ModelServer(tls=context) as server:
        outcome = await load(
            server, Closed(2), Extent(0, 10, 20), ca_file=tmp_path / "ca.pem", token="secret"
        )
    assert outcome.answered == 20
    assert all("Authorization: Bearer secret\r\n" in head for head in server.heads)


async def test_a_server_that_is_not_trusted_gets_no_request(tmp_path):
    context, _ = loopback_tls(tmp_path)
    async with ModelServer(tls=context) as server:
        outcome = await load(server, Closed(1), Extent(0, 0.1))
    assert set(outcome.errors) == {"connection"}
    assert server.heads == []


async def test_a_load_that_is_stopped_leaves_nothing_behind():
    async with ModelServer() as server:
        server.stalls = {10: 60.0}
        task = asyncio.create_task(load(server, Closed(3), Extent(0, 60)))
        async with asyncio.timeout(10):
            while len(server.bodies) < 11:  # noqa: ASYNC110 - the server's own word
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("uvloop", [True, False])
async def test_a_load_needs_no_uvloop(monkeypatch, uvloop):
    if not uvloop:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    async with ModelServer() as server:
        target = Target.parse(server.url)
        request = target.request("POST", "/v2/models/m/infer", b"{}")
        for asked in (Closed(2), Open(500)):
            outcome = await asyncio.to_thread(measured, target, [request], asked, Extent(0, 10, 20))
            assert outcome.answered == 20
            assert outcome.client_share > 0
