"""Coroutines begun at once behave as tasks do from their first wait on."""

import asyncio
import contextvars

import pytest

from inference_server.http.eager import begin

NAME = contextvars.ContextVar("name", default="")


async def test_what_never_waits_has_run_when_begin_returns():
    done = []

    async def work():
        done.append(1)

    assert begin(work(), asyncio.get_running_loop()) is None
    assert done == [1]


async def test_what_waits_goes_on_as_a_task():
    loop = asyncio.get_running_loop()
    first, second, seen = loop.create_future(), loop.create_future(), []

    async def work():
        seen.append(await first)
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            seen.append(await second)

    task = begin(work(), loop)
    assert seen == []
    first.set_result("a")
    second.set_result("b")
    await task
    assert seen == ["a", "b"]


async def test_an_error_is_raised_where_it_happens():
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    async def at_once():
        raise KeyError("early")

    async def later():
        await future

    with pytest.raises(KeyError, match="early"):
        begin(at_once(), loop)
    task = begin(later(), loop)
    future.set_exception(KeyError("late"))
    with pytest.raises(KeyError, match="late"):
        await task


async def test_cancellation_reaches_the_coroutine_and_may_be_refused():
    loop, seen = asyncio.get_running_loop(), []

    async def stubborn():
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            seen.append("cleaned up")

    async def obedient():
        await loop.create_future()

    task = begin(stubborn(), loop)
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert seen == ["cancelled", "cleaned up"]
    task = begin(obedient(), loop)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_context_variables_are_its_own_and_last_over_the_first_wait():
    seen = []

    async def work():
        token = NAME.set("inner")
        await asyncio.sleep(0)
        seen.append(NAME.get())
        NAME.reset(token)
        seen.append(NAME.get())

    task = begin(work(), asyncio.get_running_loop())
    assert NAME.get() == ""
    await task
    assert seen == ["inner", ""]
