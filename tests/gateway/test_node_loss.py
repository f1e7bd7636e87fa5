"""A node is gone without a word: its pods get nothing any more within two seconds, and nobody is left without an answer."""

import asyncio
import csv
import time
from collections.abc import Iterator

import pytest

from edgemodel.gateway import runtime
from tests.gateway.clients import Client, Load, answering, until
from tests.gateway.far_node import FarNode, far_node
from tests.gateway.site import Pod, Site

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]

OUT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
"""Most that a request takes that was at the lost node."""


@pytest.fixture
def node() -> Iterator[FarNode]:
    with far_node() as made:
        yield made


async def is_out(site: Site, pod: Pod) -> bool:
    """Tell whether HAProxy leads to a pod no more."""
    text = await runtime.ask(site.gateway.place.runtime_socket, "show stat")
    rows = csv.DictReader(text.lstrip("# ").splitlines())
    (status,) = {
        row["status"].split()[0]
        for row in rows
        if row["pxname"].endswith(".active") and row["svname"].startswith(f"{pod.name}_")
    }
    return bool(status == "DOWN")


async def seconds_to_out(site: Site, *pods: Pod) -> float:
    """Return how long from now until HAProxy leads to none of these."""
    began = time.monotonic()
    async with asyncio.timeout(10):
        while not all([await is_out(site, pod) for pod in pods]):  # noqa: ASYNC110 - the state of another process
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_a_lost_node_gets_no_request_after_two_seconds_and_no_client_is_refused(
    site: Site, node: FarNode
) -> None:
    here, far = await site.pod(), [await site.pod(node=node) for _ in range(2)]
    port = site.model()
    await answering(port)
    async with Load(port, clients=8) as load:
        await until(lambda: all(pod.answered > 50 for pod in (here, *far)), "load")
        node.cut()
        out = await seconds_to_out(site, *far)
        # Those that were at it are asked again of the pod that is left.
        total = load.total
        await until(lambda: load.total > total + 300, "load after it")
        await until(lambda: load.longest_wait() < 0.5, "nobody to be waiting")
    print(f"out after {out:.2f} s, the longest answer took {load.longest:.2f} s")
    assert out < OUT_SECONDS
    assert load.wrong == []
    assert load.longest < ANSWER_SECONDS


async def test_a_request_that_a_lost_node_had_taken_is_asked_of_another(site: Site, node: FarNode) -> None:
    here, far = await site.pod(), await site.pod(node=node)
    port = site.model()
    await answering(port)
    far.hold = asyncio.Event()
    clients = [asyncio.create_task(Client(port).ask()) for _ in range(4)]
    await until(
        lambda: far.inflight > 0 and len(clients) - far.inflight == _done(clients), "some to be there"
    )
    node.cut()
    began = time.monotonic()
    answers = await asyncio.gather(*clients)
    took = time.monotonic() - began
    print(f"answered after {took:.2f} s")
    assert [answer.status for answer in answers] == [200] * 4
    assert took < ANSWER_SECONDS
    assert here.answered >= 4
    far.hold.set()


def _done(tasks: list["asyncio.Task[object]"]) -> int:
    return sum(task.done() for task in tasks)


async def test_a_node_that_is_back_gets_requests_again(site: Site, node: FarNode) -> None:
    await site.pod()
    far = await site.pod(node=node)
    port = site.model()
    await answering(port)
    node.cut()
    await seconds_to_out(site, far)
    node.join()
    async with Load(port) as load:
        before = far.answered
        await until(lambda: far.answered > before + 20, "requests")
    assert load.wrong == []
