"""Runs something that blocks in a thread that the process does not wait for when it ends.

`asyncio.to_thread` is for what is short: its threads are waited for at the end of the loop, and a load or a run of a model
may take minutes.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def in_daemon_thread(function: Callable[[], Result], name: str) -> "asyncio.Future[Result]":
    """Return a future of what the function returns or raises; cancelling it leaves the thread alone.

    Args:
        function: Blocks.
        name: Of the thread, for whoever looks at stacks.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(settled: Callable[[], None]) -> None:
        if not future.done():
            settled()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 — handed to the waiter, which raises it
            # Bound here: Python forgets the name at the end of the clause.
            failure = error
            told = lambda: settle(lambda: future.set_exception(failure))  # noqa: E731
        else:
            told = lambda: settle(lambda: future.set_result(result))  # noqa: E731
        # The loop is closed when the process ends before the function does.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(told)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
