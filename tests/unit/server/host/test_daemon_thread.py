"""A thread that nobody waits for when the process ends."""

import asyncio
import threading

import pytest

from inference_server.host.daemon_thread import in_daemon_thread
from tests.unit.server.conftest import until


async def test_what_it_returns_and_raises_reaches_who_waits():
    assert await in_daemon_thread(lambda: 7, "t") == 7
    with pytest.raises(KeyError):
        await in_daemon_thread(lambda: {}["absent"], "t")


async def test_cancelling_leaves_the_thread_alone():
    go, ended = threading.Event(), threading.Event()

    def work():
        go.wait(5)
        ended.set()

    future = in_daemon_thread(work, "t")
    future.cancel()
    go.set()
    await until(ended.is_set)
    assert future.cancelled()


def test_the_loop_ends_before_the_thread_does():
    go, ended = threading.Event(), threading.Event()

    def work():
        go.wait(5)
        ended.set()

    async def begin():
        in_daemon_thread(work, "t")

    asyncio.run(begin())
    assert not ended.is_set()
    go.set()
    assert ended.wait(5)
