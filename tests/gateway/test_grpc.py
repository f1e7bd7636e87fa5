"""gRPC through the gateway: by port and by authority, shared call by call, drawn, tried again, guarded, counted."""

import asyncio
import collections
import contextlib
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable

import grpc
import httpx
import pytest

from tests.gateway.clients import Client, until
from tests.gateway.far_node import far_node
from tests.gateway.grpc_pod import GrpcClient, grpc_pod
from tests.gateway.site import TWO, Site

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]

Channels = Callable[..., GrpcClient]


@pytest.fixture
async def channel() -> AsyncIterator[Channels]:
    """Makes clients, and closes them."""
    made: list[GrpcClient] = []

    def make(port: int, authority: str = "") -> GrpcClient:
        made.append(GrpcClient(port, authority))
        return made[-1]

    yield make
    for client in made:
        await client.channel.close()


class Calls:
    """Clients that call all the time, until the block ends."""

    def __init__(self, client: GrpcClient, at_a_time: int = 4) -> None:
        self._client, self._at_a_time = client, at_a_time
        self.answers: collections.Counter[int] = collections.Counter()
        self.wrong: list[str] = []

    async def __aenter__(self) -> "Calls":
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._at_a_time)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _call(self) -> None:
        while True:
            try:
                self.answers[await self._client.ask()] += 1
            except grpc.aio.AioRpcError as error:
                self.wrong.append(f"{error.code()}: {error.details()}")

    async def go_on(self, calls: int) -> None:
        total = self.answers.total() + calls
        await until(lambda: self.answers.total() >= total or self.wrong, f"{calls} more calls")


async def test_a_model_answers_at_its_port_and_by_authority(site: Site, channel: Channels) -> None:
    await grpc_pod(site)
    other = await grpc_pod(site, "other", TWO)
    port = site.model()
    site.model("other", active=TWO)
    assert await (await channel(port).answers()).ask() == 1
    entry = site.settings.http_port
    assert await (await channel(entry, "detector.vision").answers()).ask() == 1
    assert await channel(entry, "other.vision:443").ask() == 2
    assert other.model.runs == 1
    for authority in ("", "vision.detector", "detector", "detector.vision.svc"):
        code, text = await channel(entry, authority).refusal()
        assert (code, "NAME.NAMESPACE" in text) == (grpc.StatusCode.NOT_FOUND, True)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel(entry, "detector.vision").ask("/metrics")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_calls_of_one_channel_are_shared_by_pods_and_http_goes_on_beside(
    site: Site, channel: Channels
) -> None:
    pods = [await grpc_pod(site) for _ in range(2)]
    port = site.model()
    client = await channel(port).answers()
    for pod in pods:
        pod.model.runs = 0
    for _ in range(200):
        assert await client.ask() == 1
    assert min(pod.model.runs for pod in pods) >= 80
    assert (await Client(port).ask("/v2/models/m/infer")).status == 400


async def test_a_candidate_gets_its_part_of_the_calls_of_one_channel(site: Site, channel: Channels) -> None:
    await grpc_pod(site)
    await grpc_pod(site, version=TWO)
    client = await channel(site.model(candidate=TWO)).answers()
    before = site.changes("runtime")
    site.model(candidate=TWO, weight=20)
    await until(lambda: site.changes("runtime") > before, "the weight")
    found = collections.Counter([await client.ask() for _ in range(1000)])
    assert 140 <= found[2] <= 260  # 20 %, within five standard deviations
    site.model(candidate=TWO, weight=100)
    await until(lambda: site.changes("runtime") > before + 1, "the weight")
    assert [await client.ask() for _ in range(20)] == [2] * 20
    assert site.changes("reload") == 1


async def test_a_pod_that_is_killed_under_load_costs_no_call(site: Site, channel: Channels) -> None:
    pods = [await grpc_pod(site) for _ in range(3)]
    client = await channel(site.model()).answers()
    async with Calls(client) as calls:
        await calls.go_on(200)
        pods[0].kill()
        await calls.go_on(400)
        pods[0].remove()
        await calls.go_on(200)
        added = await grpc_pod(site)
        await until(lambda: added.model.runs, "a call at the pod that came")
    assert calls.wrong == []


async def test_a_candidate_whose_pods_all_die_costs_no_call(site: Site, channel: Channels) -> None:
    await grpc_pod(site)
    candidates = [await grpc_pod(site, version=TWO) for _ in range(2)]
    client = await channel(site.model(candidate=TWO, weight=50)).answers()
    async with Calls(client) as calls:
        await until(lambda: all(pod.model.runs for pod in candidates), "calls")
        for pod in candidates:
            pod.kill()
        await calls.go_on(400)
    assert calls.wrong == []


async def test_a_promotion_costs_no_call(site: Site, channel: Channels) -> None:
    old = [await grpc_pod(site) for _ in range(2)]
    client = await channel(site.model()).answers()
    async with Calls(client) as calls:
        await calls.go_on(100)
        for _ in range(2):
            await grpc_pod(site, version=TWO)
        site.model(candidate=TWO, weight=50)
        await until(lambda: calls.answers[2], "the candidate's part")
        site.model(active=TWO)
        for pod in old:
            pod.show(going=True)
        before = calls.answers[2]
        await until(lambda: calls.answers[2] > before + 200, "the new version")
        for pod in old:
            pod.kill()
            pod.remove()
        await calls.go_on(200)
    assert calls.wrong == []


async def test_a_reload_under_load_costs_no_call(site: Site, channel: Channels) -> None:
    for _ in range(2):
        await grpc_pod(site)
    client = await channel(site.model()).answers()
    async with Calls(client) as calls:
        await calls.go_on(100)
        before = site.changes("reload")
        site.model("other", active=TWO)
        await until(lambda: site.changes("reload") > before, "the reload")
        await calls.go_on(300)
        # The channel has moved to the new worker, or its old one asks that: a pod that comes now gets calls.
        added = await grpc_pod(site)
        await until(lambda: added.model.runs, "a call at the pod that came")
    assert calls.wrong == []


async def test_a_request_that_a_pod_leaves_unanswered_is_asked_of_another(
    site: Site, channel: Channels
) -> None:
    one, two = await grpc_pod(site), await grpc_pod(site)
    client = await channel(site.model()).answers()
    one.model.go.clear()
    calls = [asyncio.create_task(client.ask()) for _ in range(6)]
    await until(lambda: one.model.waiting, "a call at the pod that hangs")
    one.kill()
    assert await asyncio.gather(*calls) == [1] * 6
    assert two.model.runs >= 6


async def test_a_lost_node_costs_no_call(site: Site, channel: Channels) -> None:
    with far_node() as node:
        await grpc_pod(site)
        far = [await grpc_pod(site, node=node) for _ in range(2)]
        client = await channel(site.model()).answers()
        async with Calls(client, 8) as calls:
            await until(lambda: all(pod.model.runs > 20 for pod in far), "calls")
            node.cut()
            await calls.go_on(300)
        assert calls.wrong == []


async def test_a_call_that_a_lost_node_had_taken_is_asked_of_another(site: Site, channel: Channels) -> None:
    with far_node() as node:
        here, far = await grpc_pod(site), await grpc_pod(site, node=node)
        client = await channel(site.model()).answers()
        far.model.go.clear()
        tasks = [asyncio.create_task(client.ask()) for _ in range(6)]
        await until(lambda: far.model.waiting, "a call at the far pod")
        node.cut()
        began = time.monotonic()
        assert await asyncio.gather(*tasks) == [1] * 6
        print(f"answered after {time.monotonic() - began:.2f} s")
        assert time.monotonic() - began < 6.0
        assert here.model.runs >= 6
        far.model.go.set()


async def until_refused(client: GrpcClient, code: grpc.StatusCode) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(AssertionError):
                if (await client.refusal())[0] == code:
                    return
            await asyncio.sleep(0.05)


async def test_who_may_call_is_asked_of_grpc_too(site: Site, channel: Channels) -> None:
    pod = await grpc_pod(site)
    digest = hashlib.sha256(b"let-me-in").hexdigest()
    site.access(detector={"tokens": [digest]})
    port = site.model(access={"bearerTokens": {"secretName": "callers"}})
    client = channel(port)
    await until_refused(client, grpc.StatusCode.UNAUTHENTICATED)
    assert await client.ask(authorization="Bearer let-me-in") == 1
    runs = pod.model.runs
    for metadata in ({}, {"authorization": "Bearer other"}):
        code, text = await client.refusal(**metadata)
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert "bearer token" in text
    site.model("closed", access={"bearerTokens": {"secretName": "missing"}})
    shut = channel(site.settings.http_port, "closed.vision")
    await until_refused(shut, grpc.StatusCode.PERMISSION_DENIED)
    assert pod.model.runs == runs


async def test_beyond_the_queue_a_client_is_told_to_try_again(site: Site, channel: Channels) -> None:
    pod = await grpc_pod(site)
    traffic = {"maxInflightPerPod": 1, "queue": {"limit": 2, "timeout": "30s"}}
    client = await channel(site.model(traffic=traffic)).answers()
    pod.model.go.clear()
    tasks = [asyncio.create_task(client.ask()) for _ in range(6)]
    await until(lambda: sum(task.done() for task in tasks) == 3, "three refused")
    refused = [task.exception() for task in tasks if task.done()]
    assert {error.code() for error in refused if isinstance(error, grpc.aio.AioRpcError)} == {
        grpc.StatusCode.UNAVAILABLE
    }
    pod.model.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found.count(1) == 3


async def test_where_no_pod_is_a_client_is_told_to_try_again(site: Site, channel: Channels) -> None:
    pod = await grpc_pod(site)
    client = await channel(site.model()).answers()
    pod.kill()
    assert (await client.refusal())[0] == grpc.StatusCode.UNAVAILABLE


async def test_reflection_is_a_conversation_through_the_gateway(site: Site, channel: Channels) -> None:
    await grpc_pod(site)
    client = await channel(site.model()).answers()
    call = client.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(
        timeout=20
    )
    for _ in range(2):
        await call.write(b"\x3a\x00")  # list_services
        assert b"inference.GRPCInferenceService" in await call.read()
    await call.done_writing()


async def test_haproxy_counts_grpc_apart(site: Site, channel: Channels) -> None:
    await grpc_pod(site)
    client = await channel(site.model()).answers()
    for _ in range(5):
        await client.ask()
    async with httpx.AsyncClient(trust_env=False) as http:
        told = (await http.get(f"http://127.0.0.1:{site.settings.haproxy_port}/metrics")).text
    name = r'haproxy_backend_http_requests_total\{proxy="vision\.detector\.active\.grpc"\}'
    (requests,) = re.findall(rf"^{name} (\d+)", told, flags=re.MULTILINE)
    assert int(requests) >= 6
