"""A simulated API server with a client to it, for passes that write."""

from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client.configuration import Configuration

from edgemodel.cluster.client import ApiServer
from tests.simulators.apiserver import ApiServerSimulator


@pytest.fixture
async def served() -> AsyncIterator[tuple[ApiServerSimulator, ApiServer]]:
    async with (
        ApiServerSimulator().running() as server,
        ApiServer(Configuration(host=server.url)) as api,
    ):
        yield server, api
