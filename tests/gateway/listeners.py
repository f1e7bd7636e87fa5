"""Who listens at a port: the kernel's numbers of sockets, and what a client finds."""

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.gateway.clients import SECONDS


def sockets_at(port: int) -> set[str]:
    """Return the numbers of the sockets that listen at a port (proc(5), net/tcp)."""
    lines = [
        line.split()
        for file in ("tcp", "tcp6")
        for line in Path("/proc/net", file).read_text(encoding="ascii").splitlines()[1:]
    ]
    return {fields[9] for fields in lines if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"}


def sockets_of(pid: int) -> set[str]:
    links = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


async def refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.transport.abort()
    return False


async def until_refused(port: int) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(ConnectionResetError):  # it listened until just now
                if await refused(port):
                    return
            await asyncio.sleep(0.02)
