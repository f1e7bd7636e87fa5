"""Metrics and health over HTTP."""

from collections.abc import AsyncIterator

import httpx
import pytest

from edgemodel.controller.metrics import Metrics
from edgemodel.controller.probes import ProbeServer


class State:
    wrong: str | None = None
    starting: str | None = "starting"


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
async def client(state: State) -> AsyncIterator[httpx.AsyncClient]:
    metrics = Metrics(depth=lambda: 2)
    server = ProbeServer(metrics.registry, healthy=lambda: state.wrong, ready=lambda: state.starting)
    await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        yield client
    await server.stop()


async def test_metrics_are_served(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "edgemodel_workqueue_depth 2.0" in answer.text


async def test_health_and_readiness_say_what_is_wrong(client: httpx.AsyncClient, state: State) -> None:
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).status_code == 503
    state.starting, state.wrong = None, "the watch is blind"
    assert (await client.get("/readyz")).text == "ok\n"
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "the watch is blind\n")


async def test_there_is_nothing_else(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 404
