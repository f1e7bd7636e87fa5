"""What the cluster lacks is said before anything is watched."""

from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client.configuration import Configuration

from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.kinds import EDGE_MODEL, EDGE_NODE, NODE, POD
from edgemodel.controller import preflight
from edgemodel.errors import Stalled, Transient
from tests.simulators.apiserver import ApiServerSimulator, Fault

GROUP = "/apis/edgemodel.io/v1alpha1"


@pytest.fixture
async def server() -> AsyncIterator[ApiServerSimulator]:
    async with ApiServerSimulator().running() as simulator:
        simulator.objects[GROUP] = {"resources": [{"name": "edgemodels"}, {"name": "modeltrustpolicies"}]}
        yield simulator


@pytest.fixture
async def api(server: ApiServerSimulator) -> AsyncIterator[ApiServer]:
    async with ApiServer(Configuration(host=server.url)) as client:
        yield client


async def test_a_cluster_that_has_all_passes_and_is_not_written_to(
    server: ApiServerSimulator, api: ApiServer
) -> None:
    await preflight.check(api, (POD,), ())
    assert server.writes == []


async def test_absent_crds_are_named_with_what_to_do(server: ApiServerSimulator, api: ApiServer) -> None:
    server.objects[GROUP] = {"resources": [{"name": "edgemodels"}]}
    with pytest.raises(Stalled, match="does not serve modeltrustpolicies") as caught:
        await preflight.check(api, (POD,), (), wait=0)
    assert "install the CRDs" in caught.value.message


async def test_the_kind_of_nodes_is_asked_for_where_nodes_deliver(
    server: ApiServerSimulator, api: ApiServer
) -> None:
    with pytest.raises(Stalled, match="does not serve edgenodes"):
        await preflight.check(api, (NODE,), ("vision",), own=(EDGE_MODEL, EDGE_NODE), wait=0)
    server.objects[GROUP] = {"resources": [{"name": "edgemodels"}, {"name": "edgenodes"}]}
    server.faults.append(Fault(lambda _, path: path == "/api/v1/nodes", status=403))
    with pytest.raises(Stalled, match="/api/v1/nodes: 403"):
        await preflight.check(api, (NODE,), ("vision",), own=(EDGE_MODEL, EDGE_NODE))


async def test_a_missing_permission_is_named(server: ApiServerSimulator, api: ApiServer) -> None:
    server.faults.append(Fault(lambda _, path: path.endswith("/namespaces/vision/pods"), status=403))
    with pytest.raises(Stalled, match="/namespaces/vision/pods: 403") as caught:
        await preflight.check(api, (POD,), ("vision",))
    assert "role" in caught.value.message


async def test_an_api_server_that_cannot_be_reached_is_transient() -> None:
    async with ApiServer(Configuration(host="http://127.0.0.1:1")) as api:
        with pytest.raises(Transient):
            await preflight.check(api, (POD,), (), wait=0)
