"""A pod that is much slower than the others gets next to nothing, until it is quick again."""

import pytest

from edgemodel.gateway import runtime
from edgemodel.gateway.pace import FULL
from tests.gateway.clients import Load, answering, until
from tests.gateway.site import Pod, Site

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]
QUICK, SLOW = 0.004, 0.040


def slow_pods(site: Site) -> float | None:
    return site.gateway.metrics.registry.get_sample_value("edgemodel_gateway_slow_pods")


async def weights(site: Site) -> dict[str, int]:
    """Return the weights that HAProxy has, by name of the pod."""
    told = await runtime.ask(site.gateway.place.runtime_socket, "show servers state vision.detector.active")
    lines = [line.split() for line in told.splitlines()]
    return {
        it[3].partition("_")[0]: int(it[7]) for it in lines if it[:1] and it[0].isdecimal() and len(it) > 7
    }


async def pods(site: Site, count: int = 3) -> tuple[Pod, ...]:
    found = [await site.pod() for _ in range(count)]
    for pod in found:
        pod.seconds = QUICK
    return tuple(found)


async def test_a_slow_pod_gets_next_to_nothing_over_a_reload_too_until_it_is_quick_again(site: Site) -> None:
    slow, *others = await pods(site)
    port = site.model()
    await answering(port)
    async with Load(port) as load:
        total = load.total
        await until(lambda: load.total > total + 400, "load")
        assert slow_pods(site) == 0
        slow.seconds = SLOW
        await until(lambda: slow_pods(site) == 1, "the slow one found")
        reloads = site.changes("reload")
        site.model("other")
        await until(lambda: site.changes("reload") > reloads, "a reload")
        # A look and a half: the new worker has been told.
        total = load.total
        await until(lambda: load.total > total + 500, "load at the new worker")
        answered, total = slow.answered, load.total
        await until(lambda: load.total > total + 2000, "load that leaves it out")
        assert slow.answered - answered <= 30
        slow.seconds = QUICK
        await until(lambda: slow_pods(site) == 0, "quick again", 12)
        answered = slow.answered
        await until(lambda: slow.answered > answered + 100, "its part")
    assert load.wrong == []
    assert all(pod.answered for pod in others)


async def test_a_slow_pod_that_is_going_gets_nothing_and_when_others_go_it_takes_over(site: Site) -> None:
    slow, *others = await pods(site)
    port = site.model()
    await answering(port)
    async with Load(port) as load:
        slow.seconds = SLOW
        await until(lambda: slow_pods(site) == 1, "the slow one found")
        changes = site.changes("runtime")
        for pod in others:
            pod.show(ready=False)
        answered = slow.answered
        await until(lambda: slow.answered > answered + 20, "it takes over")
        assert site.changes("runtime") > changes
        others[0].show()
        others[1].show()
        await until(lambda: slow_pods(site) == 1, "the slow one found again")
        slow.show(going=True)
        await until(lambda: slow_pods(site) == 0, "it is not looked at any more")
        answered, total = slow.answered, load.total
        slow.seconds = QUICK
        await until(lambda: load.total > total + 1500, "load without it")
        assert slow.answered <= answered + 1
        assert (await weights(site))[slow.name] == 0
    assert load.wrong == []


async def test_a_pod_that_dies_beside_a_slow_one_costs_no_request(site: Site) -> None:
    slow, one, other = await pods(site)
    port = site.model()
    await answering(port)
    async with Load(port) as load:
        slow.seconds = SLOW
        await until(lambda: slow_pods(site) == 1, "the slow one found")
        one.kill()
        answered = slow.answered
        await until(lambda: slow.answered > answered + 20, "the slow one helps")
        assert 0 < (await weights(site))[slow.name] < FULL
    assert load.wrong == []
    assert other.answered > slow.answered


async def test_a_model_with_a_limit_has_its_slow_pod_in_hand_while_all_are_busy(site: Site) -> None:
    slow, *_ = await pods(site)
    port = site.model(traffic={"maxInflightPerPod": 1})
    await answering(port)
    async with Load(port, clients=12) as load:
        slow.seconds = SLOW
        await until(lambda: slow_pods(site) == 1, "the slow one found")
        answered, total = slow.answered, load.total
        await until(lambda: load.total > total + 2000, "load")
        assert slow.answered > answered + 30  # it is never idle
    assert load.wrong == []
