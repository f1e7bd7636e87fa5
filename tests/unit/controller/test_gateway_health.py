"""The gateway's pods are asked whether they are there: who is led to no more, who is again, and when nobody is asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from edgemodel.controller.gateway_health import GatewayHealth
from edgemodel.reconcile.observed import GatewayPod


class Pod:
    """A pod of the gateway on loopback: HAProxy's port, and its agent's answer to ``/current``."""

    def __init__(self, number: int) -> None:
        self.seen = GatewayPod(f"gw-{number}", f"uid-{number}", f"127.0.3.{number}", "n1", ready=True)
        self.current = b"HTTP/1.1 200 OK\r\n\r\nok\n"
        self.asked: list[str] = []
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        ports = []
        for answer in (self._haproxy, self._agent):
            server = await asyncio.start_server(answer, self.seen.address, 0)
            self._servers.append(server)
            ports.append(server.sockets[0].getsockname()[1])
        self.seen = replace(self.seen, haproxy_port=ports[0], agent_port=ports[1])

    async def back(self) -> None:
        for port, answer in ((self.seen.haproxy_port, self._haproxy), (self.seen.agent_port, self._agent)):
            self._servers.append(await asyncio.start_server(answer, self.seen.address, port))

    def gone(self) -> None:
        while self._servers:
            self._servers.pop().close()

    async def _haproxy(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append("haproxy")
        writer.close()

    async def _agent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(line.split()[1].decode())
        writer.write(self.current)
        writer.close()


class Site:
    """Three pods at most, and what was told of them."""

    def __init__(self, *pods: Pod) -> None:
        self.pods = pods
        self.told: list[frozenset[str]] = []
        self.shown: list[GatewayPod] = [pod.seen for pod in pods]
        self.health = GatewayHealth(lambda: self.shown, self.told.append)

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.health.look()


@pytest.fixture
async def two() -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        pods = (Pod(1), Pod(2))
        for pod in pods:
            await pod.start()
            stack.callback(pod.gone)
        yield Site(*pods)
    await asyncio.sleep(0.01)  # transports close in the loop's next rounds


async def test_while_all_answer_nothing_is_told(two: Site) -> None:
    await two.look(3)
    assert two.told == []
    assert [pod.asked.count("/current") for pod in two.pods] == [0, 0]


async def test_one_that_is_silent_twice_is_left_out_once(two: Site) -> None:
    two.pods[0].gone()
    await two.look()
    assert two.told == []
    await two.look(3)
    assert two.told == [frozenset({"uid-1"})]


async def test_one_that_answers_again_is_back_when_it_knows_what_is_so(two: Site) -> None:
    first = two.pods[0]
    first.gone()
    await two.look(2)
    await first.back()
    first.current = b"HTTP/1.1 503 Service Unavailable\r\n\r\nnot everything\n"
    await two.look(2)
    assert two.told == [frozenset({"uid-1"})]
    first.current = b"HTTP/1.1 200 OK\r\n\r\nok\n"
    await two.look()
    assert two.told == [frozenset({"uid-1"}), frozenset()]
    assert two.pods[1].asked.count("/current") == 0


async def test_a_gateway_of_before_is_not_kept_out_for_want_of_an_answer(two: Site) -> None:
    first = two.pods[0]
    first.gone()
    await two.look(2)
    await first.back()
    first.current = b"HTTP/1.1 404 Not Found\r\n\r\n"
    await two.look()
    assert two.told[-1] == frozenset()


async def test_one_miss_between_answers_is_forgiven(two: Site) -> None:
    first = two.pods[0]
    for _ in range(3):
        first.gone()
        await two.look()
        await first.back()
        await two.look()
    assert two.told == []


async def test_one_that_was_not_ready_has_to_say_that_it_is_current(two: Site) -> None:
    first = two.pods[0]
    first.current = b"HTTP/1.1 503 Service Unavailable\r\n\r\n\n"
    two.shown[0] = replace(first.seen, ready=False)
    await two.look()
    two.shown[0] = first.seen
    await two.look()
    assert two.told == [frozenset({"uid-1"})]
    first.current = b"HTTP/1.1 200 OK\r\n\r\nok\n"
    await two.look()
    assert two.told[-1] == frozenset()


@pytest.mark.parametrize("other", [{"ready": False}, {"going": True}])
async def test_the_only_one_is_not_asked(two: Site, other: dict[str, bool]) -> None:
    two.shown[1] = replace(two.shown[1], **other)
    await two.look(2)
    assert two.pods[0].asked == two.pods[1].asked == []


async def test_one_that_is_deleted_is_forgotten(two: Site) -> None:
    two.pods[0].gone()
    await two.look(2)
    two.shown.pop(0)
    await two.look()
    assert two.told == [frozenset({"uid-1"}), frozenset()]
