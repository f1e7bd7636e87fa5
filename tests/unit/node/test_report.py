"""When a status is written, and when not."""

import asyncio

import pytest

from edgemodel.kube_api import ApiFailed
from edgemodel.node.report import Report


class World:
    def __init__(self, progress_seconds=0.3):
        self.status = {"models": [], "store": {"usedBytes": 0, "freeBytes": 10}}
        self.written = asyncio.Queue()
        self.failures = 0
        self.report = Report(self.build, self.write, progress_seconds=progress_seconds)
        self.task = asyncio.create_task(self.report.run())

    async def build(self):
        return {**self.status}

    async def write(self, status):
        if self.failures:
            self.failures -= 1
            raise ApiFailed("503")
        self.written.put_nowait(status)

    def say(self, **model):
        self.status = {
            **self.status,
            "models": [{"state": "Downloading", "total": 1000, "bytes": 0, **model}],
        }
        self.report.changed()

    async def next(self, seconds=1.5):
        return await asyncio.wait_for(self.written.get(), seconds)


@pytest.fixture
async def world():
    world = World()
    yield world
    world.task.cancel()
    await asyncio.gather(world.task, return_exceptions=True)


async def test_a_change_of_state_goes_out_at_once(world):
    world.say()
    assert (await world.next())["models"][0]["state"] == "Downloading"
    world.say(state="Ready", bytes=1000)
    assert (await world.next())["models"][0]["state"] == "Ready"


async def test_what_was_said_is_not_said_again(world):
    world.say()
    await world.next()
    world.status = {**world.status, "store": {"usedBytes": 5, "freeBytes": 3}}
    world.report.changed()
    with pytest.raises(TimeoutError):
        await world.next(0.4)


async def test_what_the_api_server_holds_is_not_written_again(world):
    world.report.known({"models": [{"state": "Ready", "total": 5, "bytes": 5}], "store": {}})
    world.say(state="Ready", total=5, bytes=5)
    with pytest.raises(TimeoutError):
        await world.next(0.4)
    world.report.unknown()
    assert await world.next()


async def test_bytes_go_out_in_steps_of_five_per_cent_and_not_too_often(world):
    world.say()
    await world.next()
    world.say(bytes=49)
    with pytest.raises(TimeoutError):
        await world.next(0.5)
    world.say(bytes=50)
    assert (await world.next())["models"][0]["bytes"] == 50
    loop = asyncio.get_running_loop()
    began = loop.time()
    world.say(bytes=200)
    world.say(bytes=400)
    assert (await world.next())["models"][0]["bytes"] == 400
    assert loop.time() - began >= 0.2
    assert world.written.empty()


async def test_a_state_does_not_wait_behind_bytes(world):
    slow = World(progress_seconds=60)
    slow.say()
    await slow.next()
    slow.say(bytes=500)
    slow.say(bytes=600, state="Failed")
    assert (await slow.next())["models"][0]["state"] == "Failed"
    slow.task.cancel()
    await asyncio.gather(slow.task, return_exceptions=True)


async def test_what_could_not_be_written_is_written_as_it_is_by_then(world):
    world.failures = 1
    world.say()
    world.say(state="Ready")
    assert (await world.next())["models"][0]["state"] == "Ready"
