"""A node of which this machine is not: a network namespace behind a bridge, with a cable that can be pulled.

As in hack/cluster, and as with a real switch, pulling it takes no link away on this side: packets are lost without a word.
"""

import asyncio
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETWORK = "198.18.77"  # RFC 2544: for measurements, in nobody's use
_CLONE_NEWNET = 0x40000000


class FarNode:
    """See the module's docstring."""

    def __init__(self, name: str) -> None:
        self._name = name

    def address(self, number: int) -> str:
        """Return one of its pods' addresses."""
        return f"{NETWORK}.{10 + number}"

    async def listener(self, address: str, port: int) -> socket.socket:
        """Return a socket that listens there."""
        return await asyncio.to_thread(self._listener, address, port)

    def _listener(self, address: str, port: int) -> socket.socket:
        # A namespace is a thread's: this one ends here, or goes back.
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{self._name}").open() as far:
            if libc.setns(far.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            try:
                found = socket.socket()
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                found.bind((address, port))
                found.listen(128)
            finally:
                if libc.setns(home.fileno(), _CLONE_NEWNET):
                    os.abort()  # a thread of the pool would go on in the wrong namespace
        found.setblocking(False)
        return found

    def cut(self) -> None:
        """Pull its cable."""
        ip("link", "set", f"{self._name}h", "down")

    def join(self) -> None:
        """Plug it in again."""
        ip("link", "set", f"{self._name}h", "up")


def ip(*words: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)


@contextmanager
def far_node() -> Iterator[FarNode]:
    """Yield a node of its own; nothing of it is left."""
    name = f"em{os.getpid()}"
    bridge, here, spare = f"{name}b", f"{name}h", f"{name}d"
    try:
        ip("netns", "add", name)
        ip("link", "add", bridge, "type", "bridge")
        ip("address", "add", f"{NETWORK}.1/24", "dev", bridge)
        # A bridge whose only link is down has no carrier, which a machine at a switch would not notice.
        ip("link", "add", spare, "type", "veth", "peer", "name", f"{name}p")
        ip("link", "set", f"{name}p", "up")
        ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name)
        for link in (spare, here):
            ip("link", "set", link, "master", bridge)
            ip("link", "set", link, "up")
        ip("link", "set", bridge, "up")
        ip("-n", name, "link", "set", "eth0", "up")
        for number in range(10):
            ip("-n", name, "address", "add", f"{NETWORK}.{10 + number}/24", "dev", "eth0")
        yield FarNode(name)
    finally:
        for words in (
            ("netns", "delete", name),
            ("link", "delete", here),
            ("link", "delete", spare),
            ("link", "delete", bridge),
        ):
            subprocess.run(["ip", *words], check=False, capture_output=True, timeout=10)
