"""Ends what still waits for pods of a node that is gone, so that HAProxy asks it of another pod.

A request that was sent to such a node and never confirmed would wait for as long as the kernel sends it again, which is a
quarter of an hour: no keepalive is sent while data is under way, and HAProxy 2.6 takes ``tcp-ut`` for no server that was
added at run time. So it is ended from here, some three seconds after the node went. HAProxy then does with it what it
does when a pod breaks off.

Not at once (``on-marked-down shutdown-sessions``): a request that is just being connected would be lost, not sent again.
Only where connections went unanswered: a pod that refuses them, or answers wrongly, may still end what it has.

HAProxy says on a socket of ours when a pod goes out. That only wakes: words may be lost, so it is then asked what is so.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

from edgemodel.gateway import runtime
from edgemodel.gateway.configuration import Place
from edgemodel.gateway.grpc_configuration import GRPC
from edgemodel.gateway.haproxy import HAProxy
from edgemodel.gateway.runtime import CommandRefused

LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 1.1
"""From a pod's going out until its requests are ended: longer than HAProxy's ``timeout connect``."""
WATCHFUL_SECONDS = 5.0
"""How long it is looked after a word. A pod that went out for its errors may turn out to be silent a little later."""
_SERVERS = "show stat -1 4 -1"
_SILENT = frozenset({"L4TOUT", "L4CON"})
"""What checks say where nothing answers. (One that is refused is L4CON, too; it has no connection left to end.)"""


class LostNodes(asyncio.DatagramProtocol):
    """See the module's docstring.

    Args:
        haproxy: whose requests they are.
        place: where it is asked, and speaks.
        clock: seconds that only rise.
    """

    def __init__(
        self, haproxy: HAProxy, place: Place, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._haproxy, self._place, self._clock = haproxy, place, clock
        self._heard = asyncio.Event()
        self._since: dict[str, float] = {}
        """When each server that is out was first seen so."""
        self._told: set[str] = set()
        """Those of which workers that a reload replaced were told: these look at no pod any more."""

    def datagram_received(self, data: bytes, _: object) -> None:
        """HAProxy says something of a pod."""
        if b" is DOWN" in data:
            self._heard.set()

    async def run(self) -> None:
        """Listen, and look when there is reason to; for ever.

        Raises:
            OSError: it can't listen.
        """
        path = self._place.events_socket
        Path(path).unlink(missing_ok=True)  # noqa: ASYNC240 - of one that was killed; in memory
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=path, family=socket.AF_UNIX
        )
        try:
            while True:
                await self._heard.wait()
                self._heard.clear()
                end = self._clock() + WATCHFUL_SECONDS
                while self._clock() < end and not self._heard.is_set():
                    with contextlib.suppress(CommandRefused):  # it is just being started
                        await self.look()
                    await asyncio.sleep(LOOK_SECONDS)
                if not self._heard.is_set():
                    self._since.clear()  # unseen from here on, pods come back and go again
                    self._told.clear()
        finally:
            transport.close()

    async def look(self) -> None:
        """Look once, and end what there is to end.

        Raises:
            CommandRefused: HAProxy does not answer.
        """
        silent = silent_servers(await runtime.ask(self._place.runtime_socket, _SERVERS))
        now = self._clock()
        self._since = {name: self._since.get(name, now) for name in silent}
        self._told &= silent.keys()
        lost = [name for name, since in self._since.items() if now - since >= PATIENCE_SECONDS]
        for name in lost:
            if silent[name]:
                await self._end(self._place.runtime_socket, f"shutdown sessions server {name}")
        news = [name for name in lost if name not in self._told]
        for name in news:
            # Its gRPC is looked at seldom, and multiplexed: whoever waits there waits for the same node.
            await self._end(self._place.runtime_socket, f"shutdown sessions server {_by_grpc(name)}")
        for worker in await self._haproxy.leaving() if news else ():
            for name in (*news, *map(_by_grpc, news)):
                await self._end(self._place.master_socket, f"@!{worker} shutdown sessions server {name}")
        self._told |= set(news)

    async def _end(self, at: str, command: str) -> None:
        with contextlib.suppress(CommandRefused):  # it is gone meanwhile
            await runtime.order(at, command)


def _by_grpc(name: str) -> str:
    """Return the same pod's entry in the backend for gRPC."""
    backend, _, server = name.partition("/")
    return name if backend.endswith(f".{GRPC}") else f"{backend}.{GRPC}/{server}"


def silent_servers(stat: str) -> dict[str, int]:
    """Return how many requests each server has to which connections go unanswered, as ``backend/server``.

    Args:
        stat: HAProxy's answer to ``show stat``: CSV (Management Guide, 9.1). It holds nothing that would have to be quoted
            but descriptions of checks, which stand behind what is read here.
    """
    head, *rows = stat.lstrip("# ").splitlines() or [""]
    if ",DOWN" not in stat:
        return {}
    names = head.split(",")
    backend, server, sessions, status, check = (
        names.index(name) for name in ("pxname", "svname", "scur", "status", "check_status")
    )
    found = {}
    for row in rows:
        fields = row.split(",")
        if (
            len(fields) > check
            and fields[status].startswith("DOWN")
            and fields[check].lstrip("* ") in _SILENT
        ):
            found[f"{fields[backend]}/{fields[server]}"] = int(fields[sessions] or 0)
    return found
