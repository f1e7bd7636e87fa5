"""A simulated API server and a client for it."""

from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client.configuration import Configuration

from edgemodel.cluster.client import ApiServer
from tests.simulators.apiserver import ApiServerSimulator


@pytest.fixture
async def server() -> AsyncIterator[ApiServerSimulator]:
    async with ApiServerSimulator().running() as simulator:
        yield simulator


@pytest.fixture
async def api(server: ApiServerSimulator) -> AsyncIterator[ApiServer]:
    async with ApiServer(Configuration(host=server.url)) as client:
        yield client
