"""Requests reach pods: by the model's port and by path, shared by weight and load, and again where a pod breaks off."""

import asyncio

import pytest

from tests.gateway.clients import Client, Load, answering, until, versions
from tests.gateway.site import ONE, TWO, Site

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]


async def test_a_model_answers_at_its_port_and_by_path(site: Site) -> None:
    await site.pod()
    client = await answering(site.model())
    assert (await client.ask("/v2/models/m/infer", b"12345")).text == f"{ONE} /v2/models/m/infer 5"
    entry = Client(site.settings.http_port)
    assert (await entry.ask("/vision/detector/v2/models/m?x=1")).text == f"{ONE} /v2/models/m?x=1 2"
    assert (await entry.ask("/vision/detector/v2")).text == f"{ONE} /v2 2"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/vision",
        "/vision/other/v2",
        "/vision/detector/metrics",
        "/vision/detector/",
        "/vision/detector/v2x",
    ],
)
async def test_what_is_no_model_is_not_found(site: Site, path: str) -> None:
    pod = await site.pod()
    await answering(site.model())
    before = pod.answered
    assert (await Client(site.settings.http_port).ask(path)).status == 404
    assert pod.answered == before


async def test_a_candidate_gets_its_part_of_the_requests_of_one_connection(site: Site) -> None:
    await site.pod()
    await site.pod(version=TWO)
    client = await answering(site.model(candidate=TWO))
    assert set(await versions(client, 50)) == {ONE}
    before = site.changes("runtime")
    site.model(candidate=TWO, weight=10)
    await until(lambda: site.changes("runtime") > before, "the weight")
    found = await versions(client, 2000)
    assert 130 <= found[TWO] <= 270  # 10 %, within five standard deviations
    site.model(candidate=TWO, weight=100)
    await until(lambda: site.changes("runtime") > before + 1, "the weight")
    assert set(await versions(client, 50)) == {TWO}
    assert client.connections == 1
    assert site.changes("reload") == 1  # the model's own; weights need none


async def test_requests_of_one_connection_are_shared_by_pods(site: Site) -> None:
    pods = [await site.pod() for _ in range(3)]
    client = await answering(site.model())
    for pod in pods:
        pod.answered = 0
    await versions(client, 300)
    assert min(pod.answered for pod in pods) >= 90


async def test_a_slow_pod_gets_less(site: Site) -> None:
    slow, quick = await site.pod(), await site.pod()
    port = site.model()
    await answering(port)
    slow.hold = asyncio.Event()
    stuck = Client(port)
    waiting = [asyncio.create_task(Client(port).ask()) for _ in range(2)]
    await until(lambda: slow.inflight == 1, "a request at the slow pod")
    before = quick.answered
    await versions(stuck, 20)
    assert quick.answered >= before + 20
    slow.hold.set()
    await asyncio.gather(*waiting)


async def test_a_request_whose_pod_breaks_off_is_answered_by_another(site: Site) -> None:
    one, two = await site.pod(), await site.pod()
    client = await answering(site.model())
    one.breaks = two.breaks = 1
    await versions(client, 20)
    assert one.breaks == two.breaks == 0


async def test_a_pod_that_is_killed_under_load_costs_no_request(site: Site) -> None:
    pods = [await site.pod() for _ in range(3)]
    port = site.model()
    await answering(port)
    async with Load(port) as load:
        await until(lambda: load.total > 300, "load")
        pods[0].kill()
        total = load.total
        await until(lambda: load.total > total + 600, "load after it")
        pods[0].remove()
        total = load.total
        await until(lambda: load.total > total + 300, "load after all")
    assert load.wrong == []


async def test_a_candidate_whose_pods_all_die_costs_no_request(site: Site) -> None:
    await site.pod()
    candidates = [await site.pod(version=TWO) for _ in range(2)]
    port = site.model(candidate=TWO, weight=50)
    await answering(port)
    async with Load(port) as load:
        await until(lambda: all(pod.answered for pod in candidates), "load")
        for pod in candidates:
            pod.kill()
        total = load.total
        await until(lambda: load.total > total + 600, "load after it")
    assert load.wrong == []


async def test_where_no_pod_is_a_client_is_told_to_try_again(site: Site) -> None:
    pod = await site.pod()
    port = site.model()
    await answering(port)
    pod.kill()
    answer = await Client(port).ask()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "gateway" in answer.text


async def test_beyond_the_queue_a_client_is_told_to_try_again(site: Site) -> None:
    pod = await site.pod()
    traffic = {"maxInflightPerPod": 1, "queue": {"limit": 2, "timeout": "30s"}}
    port = site.model(traffic=traffic)
    await answering(port)
    pod.hold = asyncio.Event()
    tasks = [asyncio.create_task(Client(port).ask()) for _ in range(6)]
    await until(lambda: sum(task.done() for task in tasks) == 3, "three refused")
    refused = [task.result() for task in tasks if task.done()]
    assert {(answer.status, answer.headers["retry-after"]) for answer in refused} == {(503, "1")}
    pod.hold.set()
    assert sorted(answer.status for answer in await asyncio.gather(*tasks)) == [200] * 3 + [503] * 3


async def test_who_waits_too_long_is_told_to_try_again(site: Site) -> None:
    pod = await site.pod()
    port = site.model(traffic={"maxInflightPerPod": 1, "queue": {"timeout": "200ms"}})
    await answering(port)
    pod.hold = asyncio.Event()
    first = asyncio.create_task(Client(port).ask())
    await until(lambda: pod.inflight == 1, "the first at the pod")
    answer = await Client(port).ask()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    pod.hold.set()
    assert (await first).status == 200


async def test_a_sticky_model_keeps_a_client_at_its_pod(site: Site) -> None:
    pods = [await site.pod() for _ in range(3)]
    client = await answering(site.model(traffic={"sticky": True}))
    for pod in pods:
        pod.answered = 0
    await versions(client, 30)
    assert sorted(pod.answered for pod in pods) == [0, 0, 30]
