"""Waits for a condition, with a deadline and an explanation."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T] | T], why: str, *, seconds: float = 60.0) -> T:
    """Return the first true value of ``look``; fail with ``why`` and the last value seen after ``seconds``."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while True:
        seen: Any = look()
        if inspect.isawaitable(seen):
            seen = await seen
        if seen:
            return seen
        if loop.time() >= ends:
            raise AssertionError(f"{why}: not within {seconds} s; last seen: {seen!r}")
        await asyncio.sleep(0.05)
