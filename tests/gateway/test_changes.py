"""Changes reach HAProxy without losing a request, and whatever is broken costs nobody else."""

import asyncio
import socket

import pytest

from edgemodel.gateway import runtime
from tests.gateway.clients import Client, Load, answering, until, versions
from tests.gateway.site import MODELS, ONE, TWO, Site
from tests.simulators.apiserver import Fault

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]


async def worker(site: Site) -> int | None:
    return await runtime.process_id(site.gateway.place.runtime_socket)


async def servers(site: Site, backend: str) -> set[str]:
    told = await runtime.ask(site.gateway.place.runtime_socket, f"show servers state {backend}")
    return {line.split()[3] for line in told.splitlines() if line[:1].isdecimal() and " " in line}


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_pods_come_and_go_without_a_reload_and_without_a_failed_request(site: Site) -> None:
    first = await site.pod()
    port = site.model()
    await answering(port)
    same = await worker(site)
    async with Load(port) as load:
        for _ in range(3):
            new = await site.pod()
            await until(lambda pod=new: pod.answered > 0, "requests at the new pod")
            first.show(going=True)
            await asyncio.sleep(0.3)
            done, quiet = first.answered, load.total
            await until(lambda seen=quiet: load.total > seen + 50, "more requests")
            assert first.answered == done  # one that is going gets none
            first.kill()
            first.remove()
            first = new
    assert load.wrong == []
    assert await worker(site) == same
    assert (site.changes("start"), site.changes("reload"), site.gateway.haproxy.starts) == (1, 1, 1)
    async with asyncio.timeout(20):
        while len(await servers(site, "vision.detector.active")) > 1:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.1)


async def test_a_request_that_is_under_way_ends_at_a_pod_that_is_going(site: Site) -> None:
    pod = await site.pod()
    port = site.model()
    await answering(port)
    pod.hold = asyncio.Event()
    asked = asyncio.create_task(Client(port).ask())
    await until(lambda: pod.inflight == 1, "a request under way")
    await site.pod()
    before = site.changes("runtime")
    pod.show(going=True)
    await until(lambda: site.changes("runtime") > before, "the change")
    pod.remove()
    await until(lambda: site.changes("runtime") > before + 1, "the change")
    pod.hold.set()
    assert (await asked).status == 200


async def test_a_pod_that_is_unready_gets_nothing_until_it_is_ready_again_even_over_a_reload(
    site: Site,
) -> None:
    one, two = await site.pod(), await site.pod()
    port = site.model()
    client = await answering(port)
    one.show(ready=False)
    await until(lambda: site.changes("runtime") >= 1, "the change")
    site.model("other")
    await until(lambda: site.changes("reload") >= 2, "a reload")
    done = one.answered
    await versions(client, 20)
    assert one.answered == done
    one.show()
    await until(lambda: site.changes("runtime") >= 2, "the change")
    two.kill()
    await versions(client, 20)
    assert one.answered == done + 20


async def test_promotion_and_rollback_lose_nothing_and_no_old_version_answers_after(site: Site) -> None:
    old, new = await site.pod(), await site.pod(version=TWO)
    port = site.model(candidate=TWO, weight=100)
    client = await answering(port)
    async with Load(port) as load:
        await until(lambda: load.total > 100, "load")
        answered, changed = old.answered, site.changes("runtime")
        site.model(active=TWO)
        await until(lambda: site.changes("runtime") > changed, "the promotion")
        total = load.total
        await until(lambda: load.total > total + 200, "load after it")
        assert old.answered == answered
        site.model(active=TWO, candidate=ONE, weight=100)
        await until(lambda: old.answered > answered, "a rollback")
        site.model(active=TWO)
        await asyncio.sleep(0.3)
        assert set(await versions(client, 50)) == {TWO}
    assert load.wrong == []
    assert new.answered > 200


async def test_reloads_under_load_lose_nothing(site: Site) -> None:
    await site.pod()
    port = site.model()
    await answering(port)
    async with Load(port, clients=8) as load:
        for number in range(4):
            total, reloads = load.total, site.changes("reload")
            site.model(f"other-{number}")
            await until(lambda seen=reloads: site.changes("reload") > seen, "a reload")
            await until(lambda seen=total: load.total > seen + 200, "load after it")
    assert load.wrong == []
    assert site.gateway.haproxy.starts == 1


async def test_a_client_that_was_idle_over_a_reload_and_a_change_of_all_pods_is_answered(site: Site) -> None:
    pod = await site.pod()
    port = site.model()
    idle = await answering(port)
    site.model("other")
    await until(lambda: site.changes("reload") >= 2, "a reload")
    assert len(await site.gateway.haproxy.leaving()) == 1
    new = await site.pod()
    async with Load(port):
        await until(lambda: new.answered > 0, "the new pod")
    pod.kill()
    pod.remove()
    await until(lambda: site.changes("runtime") >= 2, "the old pod's end")
    assert (await idle.ask()).status == 200
    assert idle.connections == 1


async def test_many_new_models_are_few_reloads(site: Site) -> None:
    await site.pod("model-0")
    ports = [site.model(f"model-{number}") for number in range(50)]
    await answering(ports[0])
    assert (await Client(ports[49]).ask()).status == 503
    assert site.changes("reload") <= 2


async def test_while_a_reload_waits_pods_of_other_models_are_told(site: Site) -> None:
    await site.pod()
    port = site.model()
    await answering(port)
    site.gateway._next_reload = asyncio.get_running_loop().time() + 3600  # as after many reloads
    other = site.model("other")
    new = await site.pod()
    async with Load(port):
        await until(lambda: new.answered > 0, "the new pod", 5)
    with pytest.raises(OSError):
        await Client(other).ask()


async def test_a_model_at_a_port_that_is_taken_is_left_out(site: Site) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        site.model("unlucky", port=other.getsockname()[1])
        await site.pod()
        await answering(site.model())
    assert site.gateway.haproxy.starts == 1


async def test_an_edge_model_that_makes_no_sense_is_left_out_and_told(site: Site) -> None:
    site.server.put(f"{MODELS}/broken", {"spec": {"image": 7}, "status": {"gatewayPort": "x", "slots": []}})
    await site.pod()
    await answering(site.model())
    assert site.gateway.metrics.registry.get_sample_value("edgemodel_gateway_routes_left_out") == 1


async def test_while_the_api_server_is_away_what_was_known_goes_on(site: Site) -> None:
    await site.pod()
    port = site.model()
    client = await answering(port)
    site.server.faults.append(Fault(lambda *_: True))
    site.server.end_watches()
    await until(lambda: not any(one.in_step for one in site.gateway._followed), "the outage noticed")
    await versions(client, 20)
    new = await site.pod()
    site.server.faults.clear()
    async with Load(port):
        await until(lambda: new.answered > 0, "the pod that came meanwhile")


async def test_a_start_without_the_api_server_begins_with_what_was_good_last(still: Site) -> None:
    await still.pod()
    port = still.model()
    async with still.running():
        await answering(port)
    with pytest.raises(OSError):
        await Client(port).ask()
    still.server.faults.append(Fault(lambda *_: True))
    async with still.running():
        client = await answering(port)
        assert not still.gateway._secrets.read
        still.server.faults.clear()
        new = await still.pod()
        async with Load(port):
            await until(lambda: new.answered > 0, "the pod that came meanwhile")
        assert client.connections == 1


async def test_it_ends_when_requests_that_are_under_way_have_ended(still: Site) -> None:
    pod = await still.pod()
    port = still.model()
    async with still.supervised() as supervisor, still.agent():
        await answering(port)
        pod.hold = asyncio.Event()
        asked = asyncio.create_task(Client(port).ask())
        await until(lambda: pod.inflight == 1, "a request under way")
        supervisor.terminate()
        await until(lambda: refused(port), "no more connections")
        pod.hold.set()
        assert (await asked).status == 200
        assert await asyncio.wait_for(supervisor.wait(), 5) == 0
