"""A pod of the gateway that was told to end stays until nobody is led to it, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from edgemodel.gateway.drain import drain
from tests.simulators.apiserver import ApiServerSimulator, Fault

SLICE = "/apis/discovery.k8s.io/v1/namespaces/vision/endpointslices/detector-gateway"
OURS = {"app.kubernetes.io/managed-by": "edgemodel-operator"}


@pytest.fixture
async def server() -> AsyncIterator[ApiServerSimulator]:
    async with ApiServerSimulator().running() as simulator:
        yield simulator


@pytest.fixture
async def client(server: ApiServerSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as made:
        yield made


def lead(
    server: ApiServerSimulator, *addresses: str, ready: bool = True, path: str = SLICE, **labels: str
) -> None:
    conditions = {"ready": ready, "serving": True, "terminating": not ready}
    endpoints = [{"addresses": [address], "conditions": conditions} for address in addresses]
    server.put(path, {"metadata": {"labels": {**OURS, **labels}}, "endpoints": endpoints})


def draining(client: httpx.AsyncClient, *namespaces: str, limit: float = 30.0) -> asyncio.Task[bool]:
    return asyncio.create_task(drain(client, "10.42.0.9", namespaces, limit=limit, look=0.02, settle=0.0))


async def looked(server: ApiServerSimulator, times: int) -> None:
    async with asyncio.timeout(1.5):
        while len(server.seen) < times:  # noqa: ASYNC110 - a list, and no event to wait for
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "after",
    [{"addresses": ["10.42.0.9"], "ready": False}, {"addresses": ["10.42.1.9"]}, {"addresses": []}],
    ids=["called going", "another in its place", "none"],
)
async def test_it_stays_until_no_slice_leads_to_it(
    server: ApiServerSimulator, client: httpx.AsyncClient, after: dict[str, Any]
) -> None:
    lead(server, "10.42.0.9", "10.42.1.9")
    task = draining(client)
    await looked(server, 3)
    assert not task.done()
    lead(server, *after.pop("addresses"), **after)
    assert await task is True


async def test_one_slice_of_many_is_enough_to_stay(
    server: ApiServerSimulator, client: httpx.AsyncClient
) -> None:
    for number in range(1200):
        lead(server, "10.42.1.9", path=f"{SLICE}-{number:04}")
    lead(server, "10.42.0.9", path=f"{SLICE}-last")
    assert await drain(client, "10.42.0.9", limit=0.1, look=0.2) is False


async def test_what_cannot_be_looked_at_is_not_forgotten(
    server: ApiServerSimulator, client: httpx.AsyncClient
) -> None:
    server.faults.append(Fault(lambda *_: True))
    task = draining(client)
    await looked(server, 3)
    assert not task.done()
    server.faults.clear()
    assert await task is True


async def test_it_does_not_stay_for_ever(server: ApiServerSimulator, client: httpx.AsyncClient) -> None:
    lead(server, "10.42.0.9")
    assert await draining(client, limit=0.1) is False


async def test_where_some_namespaces_are_served_no_other_is_asked_for(
    server: ApiServerSimulator, client: httpx.AsyncClient
) -> None:
    lead(server, "10.42.1.9")
    assert await draining(client, "vision", "audio") is True
    assert {request.path.split("/")[5] for request in server.seen} == {"vision", "audio"}
