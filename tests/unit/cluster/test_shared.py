"""Readings are shared by passes, and never older than what happened before they were asked for."""

import asyncio

import pytest

from edgemodel.cluster.shared import Shared
from edgemodel.errors import Transient


class World:
    """A value that changes, and readings of it that take as long as the test likes."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.now = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()
        self.fails = False
        self.shared = Shared(self.read, max_age=10.0, clock=lambda: self.now)

    async def read(self) -> int:
        self.reads += 1
        self.began.set()
        value = self.value
        await self.gate.wait()
        if self.fails:
            raise Transient("ApiServerError", "down")
        return value


@pytest.fixture
async def world() -> World:
    return World()


async def test_passes_of_one_burst_share_one_reading(world: World) -> None:
    assert await asyncio.gather(*(world.shared.get() for _ in range(50))) == [0] * 50
    assert await world.shared.get() == 0
    assert world.reads == 1


async def test_a_reading_serves_for_its_age_and_no_longer(world: World) -> None:
    await world.shared.get()
    world.value, world.now = 1, 9.9
    assert await world.shared.get() == 0
    world.now = 10.0
    assert await world.shared.get() == 1


async def test_after_an_event_nobody_is_given_what_was_read_before_it(world: World) -> None:
    await world.shared.get()
    world.value = 1
    world.shared.invalidate()
    assert await world.shared.get() == 1


async def test_a_reading_under_way_when_something_happens_is_not_given_to_those_who_ask_afterwards(
    world: World,
) -> None:
    world.gate.clear()
    before = asyncio.create_task(world.shared.get())
    await world.began.wait()
    world.value = 1
    world.shared.invalidate()
    after = asyncio.create_task(world.shared.get())
    joined = asyncio.create_task(world.shared.get())
    await asyncio.sleep(0)
    world.gate.set()
    assert await asyncio.gather(before, after, joined) == [0, 1, 1]
    assert world.reads == 2


async def test_a_failure_is_told_to_those_who_wait_and_kept_for_nobody(world: World) -> None:
    world.fails = True
    results = await asyncio.gather(world.shared.get(), world.shared.get(), return_exceptions=True)
    assert all(isinstance(result, Transient) for result in results)
    assert world.reads == 1
    world.fails = False
    assert await world.shared.get() == 0


async def test_a_pass_that_is_cut_off_takes_the_reading_from_nobody(world: World) -> None:
    world.gate.clear()
    first = asyncio.create_task(world.shared.get())
    second = asyncio.create_task(world.shared.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.gate.set()
    assert await second == 0
    assert world.reads == 1
