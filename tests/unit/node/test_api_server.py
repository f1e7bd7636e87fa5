"""The agent's requests to the API server, against a simulated one: what is asked, what goes wrong, what is waited for."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from edgemodel.errors import Stalled
from edgemodel.kube_api import Address, ApiFailed
from edgemodel.node.api_server import ApiServer
from edgemodel.node.edge_node_watch import edge_nodes
from edgemodel.node.heartbeat import beat
from tests.simulators.apiserver import ApiServerSimulator, Fault
from tests.unit.node.site import EDGE_NODE, LEASE, NODE, want


@pytest.fixture
async def server():
    async with ApiServerSimulator().running() as server:
        yield server


@pytest.fixture
async def api(server, tmp_path):
    (tmp_path / "token").write_text("first\n")
    async with ApiServer(Address(server.url, "system", tmp_path / "token"), NODE) as api:
        yield api


async def following(api):
    """The objects that a watch yields, one after the other."""
    return edge_nodes(api, first_pause=0.02)


async def next_of(stream):
    async with asyncio.timeout(1.5):
        return await anext(stream)


async def test_a_node_makes_its_own_object_with_nothing_in_it(server, api):
    async with aclosing(await following(api)) as stream:
        assert (await next_of(stream))["spec"] == {}
    (made,) = [request for request in server.writes if request.method == "POST"]
    assert made.query["fieldManager"] == "edgemodel-node"
    assert made.headers["Authorization"] == "Bearer first"


async def test_only_its_own_object_is_watched(server, api):
    want(server, {"models": []})
    server.put(EDGE_NODE + "-else", {"spec": {"models": []}})
    async with aclosing(await following(api)) as stream:
        await next_of(stream)
        server.put(EDGE_NODE + "-else", {"spec": {"rateLimit": 1}})
        want(server, {"rateLimit": 5})
        assert (await next_of(stream))["spec"] == {"rateLimit": 5}


async def test_a_watch_that_is_too_old_begins_anew(server, api):
    want(server, {"rateLimit": 1})
    server.expired = 10_000
    async with aclosing(await following(api)) as stream:
        await next_of(stream)
        want(server, {"rateLimit": 2})
        seen = await next_of(stream)
        while seen["spec"] != {"rateLimit": 2}:
            seen = await next_of(stream)


async def test_a_watch_that_breaks_and_an_api_server_that_fails_are_waited_out(server, api):
    want(server, {"rateLimit": 1})
    async with aclosing(await following(api)) as stream:
        await next_of(stream)
        server.faults.append(Fault(lambda method, path: method == "GET", status=503, times=2))
        want(server, {"rateLimit": 2})
        seen = await next_of(stream)
        server.end_watches()
        want(server, {"rateLimit": 3})
        while seen["spec"] != {"rateLimit": 3}:
            seen = await next_of(stream)


async def test_an_object_that_is_deleted_is_made_anew(server, api):
    want(server, {"rateLimit": 1})
    async with aclosing(await following(api)) as stream:
        await next_of(stream)
        server.remove(EDGE_NODE)
        assert (await next_of(stream))["spec"] == {}


async def test_status_is_applied_whole(server, api):
    want(server, {})
    await api.apply_status({"modelsReady": "1/1"})
    (request,) = [request for request in server.writes if request.path.endswith("/status")]
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert request.query == {"fieldManager": "edgemodel-node", "force": "true"}
    assert request.body["metadata"] == {"name": NODE}
    assert server.objects[EDGE_NODE]["status"] == {"modelsReady": "1/1"}


async def test_what_is_empty_in_status_is_not_mentioned(server, api):
    want(server, {})
    await api.apply_status({"modelsReady": "0/0", "models": []})
    assert server.objects[EDGE_NODE]["status"] == {"modelsReady": "0/0"}


async def test_a_refusal_says_what_and_shows_no_token(server, api):
    server.faults.append(Fault(lambda *_: True, status=403, message="no way", headers={"Retry-After": "7"}))
    with pytest.raises(ApiFailed, match="403 no way") as refused:
        await api.apply_status({})
    assert (refused.value.status, refused.value.retry_after) == (403, 7.0)
    assert "first" not in str(refused.value)


async def test_a_token_that_was_replaced_is_read_again_when_the_old_one_is_refused(server, api, tmp_path):
    await api.get_edge_node()
    (tmp_path / "token").write_text("second")
    server.faults.append(Fault(lambda *_: True, status=401, times=1))
    with pytest.raises(ApiFailed):
        await api.get_edge_node()
    await api.get_edge_node()
    assert server.seen[-1].headers["Authorization"] == "Bearer second"


async def test_no_token_is_said(server, tmp_path):
    async with ApiServer(Address(server.url, "system", tmp_path / "none"), NODE) as api:
        with pytest.raises(ApiFailed, match="no token"):
            await api.get_edge_node()


async def test_a_lease_is_made_and_then_renewed_by_one_field(server, api):
    await api.renew_lease(180)
    first = server.objects[LEASE]["spec"]
    assert (first["holderIdentity"], first["leaseDurationSeconds"]) == (NODE, 180)
    await api.renew_lease(180)
    patch = server.writes[-1]
    assert (patch.method, list(patch.body["spec"])) == ("PATCH", ["renewTime"])
    assert server.objects[LEASE]["spec"]["holderIdentity"] == NODE


async def test_another_rhythm_reaches_the_lease_that_is_there_once(server, api):
    server.put(LEASE, {"spec": {"holderIdentity": NODE, "leaseDurationSeconds": 180}})
    await api.renew_lease(30)
    assert server.objects[LEASE]["spec"]["leaseDurationSeconds"] == 30
    await api.renew_lease(30)
    assert list(server.writes[-1].body["spec"]) == ["renewTime"]


async def test_times_are_the_api_servers(server, api):
    before = datetime.now(UTC)
    await api.get_edge_node()
    told = server.seen and api.now()
    assert told.tzinfo is UTC
    assert abs((told - before).total_seconds()) <= 2


async def test_the_heart_beats_and_gets_over_what_goes_wrong(server, api):
    server.faults.append(Fault(lambda *_: True, status=500, times=2))
    heard = asyncio.Event()
    task = asyncio.create_task(beat(api, 0.05, heard=heard.set))
    async with asyncio.timeout(1.5):
        await heard.wait()
    task.cancel()
    assert LEASE in server.objects


@pytest.mark.parametrize("url", ["ftp://host", "host:6443", "https://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(Stalled, match="API server"):
        ApiServer(Address(url, "system"), NODE)


def test_outside_a_cluster_it_is_said_what_to_do():
    with pytest.raises(Stalled, match="--api-server"):
        Address.in_cluster({})
