"""Every model has a port of the gateway of its own, and keeps it."""

import asyncio
from typing import Any

import pytest

from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.cluster import ports
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.ports import FIRST, LAST, Ports
from edgemodel.errors import Transient
from tests.simulators.apiserver import ApiServerSimulator, Fault

OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


class Site:
    """EdgeModels on a simulated API server, and an operator that gives them ports."""

    def __init__(self, server: ApiServerSimulator, api: ApiServer) -> None:
        self.server, self.api = server, api
        self.clock = 0.0
        self.restart()

    def restart(self) -> None:
        self.ports = Ports(self.api, clock=lambda: self.clock)

    def path(self, name: str, namespace: str = "vision") -> str:
        return f"/apis/edgemodel.io/v1alpha1/namespaces/{namespace}/edgemodels/{name}"

    def put(self, name: str, port: int | None = None, *, made: str = OLD, namespace: str = "vision") -> None:
        manifest: dict[str, Any] = {
            "metadata": {"creationTimestamp": made},
            "spec": {"image": "registry.site.local/models/detector:stable"},
            "status": {} if port is None else {"gatewayPort": port},
        }
        self.server.put(self.path(name, namespace), manifest)

    async def port(self, name: str, namespace: str = "vision") -> int | None:
        live = self.server.objects[self.path(name, namespace)]
        return await self.ports.port(EdgeModel.model_validate(live), live["metadata"]["creationTimestamp"])


@pytest.fixture
def site(server: ApiServerSimulator, api: ApiServer) -> Site:
    return Site(server, api)


async def test_models_that_come_together_get_different_ports(site: Site) -> None:
    names = [f"m{number}" for number in range(300)]
    for name in names:
        site.put(name)
    given = await asyncio.gather(*map(site.port, names))
    assert len(set(given)) == 300
    assert all(port is not None and FIRST <= port <= LAST for port in given)


async def test_a_port_that_status_tells_stays_over_restarts(site: Site) -> None:
    site.put("detector", 20017)
    site.put("other")
    for _ in range(3):
        assert await site.port("detector") == 20017
        assert await site.port("other") != 20017
        site.restart()


async def test_what_was_given_and_not_yet_written_is_given_to_nobody_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "LAST", FIRST + 1)
    site.put("a")
    first = await site.port("a")
    site.put("b")
    second = await site.port("b")
    assert {first, second} == {FIRST, FIRST + 1}
    assert await site.port("a") == first
    site.put("c")
    assert await site.port("c") is None, "all are taken"
    site.server.remove(site.path("a"))
    site.ports.forget("vision", "a")
    assert await site.port("c") == first


async def test_of_two_with_one_port_the_older_keeps_it_whoever_is_looked_at_first(site: Site) -> None:
    for order in (("old", "young"), ("young", "old")):
        site.put("old", 20500, made=OLD)
        site.put("young", 20500, made=YOUNG)
        site.restart()
        given = {name: await site.port(name) for name in order}
        assert given["old"] == 20500
        assert given["young"] != 20500


async def test_of_two_made_in_one_second_the_name_decides(site: Site) -> None:
    site.put("b", 20500)
    site.put("a", 20500)
    assert await site.port("b") != 20500
    assert await site.port("a") == 20500


async def test_a_model_is_not_moved_for_one_that_has_gone_meanwhile(site: Site) -> None:
    site.put("old", 20500, made=OLD)
    site.put("other")
    await site.port("other")  # all statuses are read
    site.server.remove(site.path("old"))
    site.put("young", 20500, made=YOUNG)
    assert await site.port("young") == 20500


@pytest.mark.parametrize("nonsense", [80, 8080, 30000, 65535])
async def test_a_port_that_is_none_of_ours_is_replaced(site: Site, nonsense: int) -> None:
    site.put("detector", nonsense)
    port = await site.port("detector")
    assert port is not None
    assert FIRST <= port <= LAST


async def test_a_model_of_the_same_name_begins_afresh_and_mostly_where_it_was(site: Site) -> None:
    site.put("detector")
    before = await site.port("detector")
    site.server.remove(site.path("detector"))
    site.ports.forget("vision", "detector")
    site.put("detector")
    assert await site.port("detector") == before


async def test_many_passes_cost_one_list(site: Site, server: ApiServerSimulator) -> None:
    names = [f"m{number}" for number in range(20)]
    for name in names:
        site.put(name)
    for _ in range(3):
        await asyncio.gather(*map(site.port, names))
    assert len(server.seen) == 1


async def test_without_the_api_server_none_is_given(site: Site) -> None:
    site.put("detector")
    site.server.faults.append(Fault(lambda *_: True))
    with pytest.raises(Transient):
        await site.port("detector")
    site.server.faults.clear()
    assert await site.port("detector") is not None
