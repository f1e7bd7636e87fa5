"""Reads what another process answers, in bounded time and memory."""

import asyncio

import httpx


async def read_all(response: httpx.Response, cap: int, seconds: float) -> bytes | None:
    """Read a whole body of at most ``cap`` bytes in ``seconds``; None when it is longer."""
    content = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > cap:
                    return None
    except TimeoutError:
        raise httpx.ReadTimeout("the answer took too long") from None
    return bytes(content)
