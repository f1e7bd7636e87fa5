"""The agent as a process: spec in, model on disk, status out; killed in the middle, and again with nobody to ask."""

import asyncio
import signal

import pytest

from edgemodel.artifact.digest import Digest
from tests.simulators.apiserver import ApiServerSimulator
from tests.unit.artifact.artifacts import publish
from tests.unit.node.site import EDGE_NODE, LEASE, AgentProcess, ask, entry, said, spec, until, want

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]

FILES = {"model.onnx": b"graph" * 100, "weights/model.data": bytes(range(256)) * 16384}
RESIDENT_BYTES = 70_000_000
"""61 MB in the image; here httpx finds click and rich beside it, and bytecode is compiled on the way."""


@pytest.fixture
async def api():
    async with ApiServerSimulator().running() as api:
        yield api


@pytest.fixture
async def agent(tmp_path, api, registry):
    agent = AgentProcess(tmp_path, api, registry)
    yield agent
    await agent.close()


def ready(api):
    return [line for line in said(api) if line["state"] == "Ready"]


def installed(agent, published):
    return agent.store / "models" / published.pinned.digest.hex


async def test_what_the_spec_says_comes_and_is_said(agent, api, registry):
    port = await agent.start()
    await until(lambda: EDGE_NODE in api.objects)
    assert api.objects[EDGE_NODE]["spec"] == {}, "an agent writes no spec"
    published = publish(registry, FILES)
    want(api, spec(entry(published)))
    (line,) = await until(lambda: ready(api))
    assert (line["reason"], line["kind"], line["bytes"]) == ("Pulled", "Full", line["total"])
    for path, content in FILES.items():
        assert (installed(agent, published) / path).read_bytes() == content
    status = api.objects[EDGE_NODE]["status"]
    assert status["sealingKey"]
    assert status["modelsReady"] == "1/1"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Ready": "True",
        "DiskPressure": "False",
    }
    await until(lambda: LEASE in api.objects)
    code, text = await ask(port, "/metrics")
    assert (code, (await ask(port, "/readyz"))[0]) == (200, 200)
    assert 'edgemodel_node_models{state="Ready"} 1.0' in text
    assert agent.resident_bytes() <= RESIDENT_BYTES
    assert await agent.end() == 0
    assert not list(agent.kubelet.rglob("*.sock")), "the kubelet is told that the driver has gone"


async def test_a_download_goes_on_after_the_agent_was_killed(agent, api, registry):
    published = publish(registry, FILES)
    weights = Digest.of(FILES["weights/model.data"])
    fault = registry.fault("GET", f"/blobs/{weights}", times=None, stall=3 << 20)
    want(api, spec(entry(published)))
    await agent.start()
    partial = agent.store / "blobs" / "sha256"
    await until(lambda: any(path.stat().st_size >= 2 << 20 for path in partial.glob("*.partial")))
    assert await agent.end(signal.SIGKILL) == -signal.SIGKILL
    fault.times = 0
    registry.requests.clear()
    await agent.start()
    await until(lambda: ready(api))
    ranges = [request.headers.get("range") for request in registry.seen("GET", f"/blobs/{weights}")]
    assert any(ranges), "what was there was fetched once more"
    assert (installed(agent, published) / "weights/model.data").read_bytes() == FILES["weights/model.data"]


async def test_after_a_restart_nothing_is_fetched_said_or_needed(agent, api, registry):
    published = publish(registry, FILES)
    want(api, spec(entry(published)))
    await agent.start()
    (before,) = await until(lambda: ready(api))
    await until(lambda: api.objects[EDGE_NODE]["status"]["store"]["usedBytes"] > 4 << 20)
    await agent.end(signal.SIGKILL)
    registry.requests.clear()
    api.seen.clear()
    await agent.start()
    await agent.logged("is ready")
    await until(lambda: [r for r in api.seen if r.path == LEASE])
    assert not registry.requests
    assert not [r for r in api.writes if r.path.endswith("/status")], "it was all said already"
    await agent.end()
    # And with neither: a port where nobody listens.
    await agent.start(api_url="http://127.0.0.1:9")
    await agent.logged("is ready")
    assert said(api) == [before]


async def test_an_entry_that_goes_is_no_longer_said_and_stays_on_disk(agent, api, registry):
    published = publish(registry, FILES)
    want(api, spec(entry(published)))
    await agent.start()
    await until(lambda: ready(api))
    want(api, spec())
    await until(lambda: not said(api))
    assert installed(agent, published).is_dir(), "there is room for it"


async def test_the_api_server_may_break_every_watch(agent, api, registry):
    await agent.start()
    await until(lambda: EDGE_NODE in api.objects)
    api.end_watches()
    published = publish(registry, FILES)
    want(api, spec(entry(published)))
    await until(lambda: ready(api))


async def test_wrong_settings_end_the_start(tmp_path, api, registry):
    agent = AgentProcess(tmp_path, api, registry, storebudget=5)
    with pytest.raises(AssertionError, match=r"storebudget.*is no setting"):
        await agent.start()
    assert agent.process is not None
    assert await asyncio.wait_for(agent.process.wait(), 5) == 2
    await agent.close()
