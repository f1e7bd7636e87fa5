"""Coroutines begun at once: what never waits needs no task, and no turn of the event loop.

A task costs its making and a turn of the loop, with a look at all sockets, before it does anything: a sixth of the
server's time for a small request. Python 3.12 has eager tasks; this is them for 3.11, with one difference: up to its
first wait a coroutine runs in no task, so that what asks for the current one (`asyncio.timeout`) belongs after it.
Context variables are a task's own from the start.
"""

import asyncio
import contextvars
import types
from collections.abc import Coroutine, Generator
from typing import Any


def begin(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """Run a coroutine up to its first wait.

    Args:
        coroutine: What to run; not begun yet.
        loop: The loop that is running.

    Returns:
        The task that goes on with it; None when it has ended already.

    Raises:
        BaseException: What it raised before its first wait.
    """
    context = contextvars.copy_context()
    try:
        waits_for = context.run(coroutine.send, None)
    except StopIteration:
        return None
    return loop.create_task(_go_on(coroutine, waits_for), context=context)


async def _go_on(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
    await _rest(coroutine, waits_for)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Pass on what a coroutine waits for, and what comes of that, as `await` does."""
    while True:
        error: BaseException | None = None
        try:
            sent = yield waits_for
        except BaseException as thrown:  # noqa: BLE001 — handed to the coroutine, which decides
            error = thrown
        try:
            waits_for = coroutine.send(sent) if error is None else coroutine.throw(error)
        except StopIteration:
            return
