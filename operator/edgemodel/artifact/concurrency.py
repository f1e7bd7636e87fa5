"""Several network operations at once, a bounded number of them.

Promises: when one fails, the others are cancelled and awaited, nothing runs on in the background, and its own error comes
out.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

Result = TypeVar("Result")


async def concurrently(operations: Sequence[Coroutine[Any, Any, Result]], *, at_once: int) -> list[Result]:
    """Run coroutines, ``at_once`` of them at a time, and return their results in order."""
    gate = asyncio.Semaphore(at_once)

    async def gated(operation: Coroutine[Any, Any, Result]) -> Result:
        async with gate:
            return await operation

    tasks = [asyncio.ensure_future(gated(operation)) for operation in operations]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for operation in operations:
            operation.close()  # those that never began
