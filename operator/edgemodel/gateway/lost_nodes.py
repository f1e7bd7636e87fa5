"""Ends what still waits for pods of a node that is gone, so that HAProxy asks it of another pod.

A request that was sent to such a node and never confirmed would wait for as long as the kernel sends it again, which is a
quarter of an hour: no keepalive is sent while data is under way, and HAProxy 2.6 takes ``tcp-ut`` for no server that was
added at run time. So it is ended from here, some three seconds after the node went. HAProxy then does with it what it
does when a pod breaks off.

Not at once (``on-marked-down shutdown-sessions``): a request that is just being connected would be lost, not sent again.
Only where connections went unanswered: a pod that refuses them, or answers wrongly, may still end what it has.
"""

import contextlib
import time
from collections.abc import Callable

from edgemodel.gateway import runtime
from edgemodel.gateway.haproxy import HAProxy
from edgemodel.gateway.runtime import CommandRefused

LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 1.1
"""From a pod's going out until its requests are ended: longer than HAProxy's ``timeout connect``."""
_SERVERS = "show stat -1 4 -1"
_SILENT = frozenset({"L4TOUT", "L4CON"})
"""What checks say where nothing answers. (One that is refused is L4CON, too; it has no connection left to end.)"""


class LostNodes:
    """Call ``look`` twice a second.

    Args:
        haproxy: whose sessions they are.
        socket: its runtime API.
        master: its master's.
        clock: seconds that only rise.
    """

    def __init__(
        self, haproxy: HAProxy, *, socket: str, master: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._haproxy, self._socket, self._master = haproxy, socket, master
        self._clock = clock
        self._since: dict[str, float] = {}
        """When each server that is out was first seen so."""
        self._told: set[str] = set()
        """Those of which workers that a reload replaced were told: these look at no pod any more."""

    async def look(self) -> None:
        """Look once, and end what there is to end.

        Raises:
            CommandRefused: HAProxy does not answer.
        """
        silent = silent_servers(await runtime.ask(self._socket, _SERVERS))
        now = self._clock()
        self._since = {name: self._since.get(name, now) for name in silent}
        self._told &= silent.keys()
        lost = [name for name, since in self._since.items() if now - since >= PATIENCE_SECONDS]
        for name in lost:
            if silent[name]:
                await self._end(self._socket, f"shutdown sessions server {name}")
        news = [name for name in lost if name not in self._told]
        for worker in await self._haproxy.leaving() if news else ():
            for name in news:
                await self._end(self._master, f"@!{worker} shutdown sessions server {name}")
        self._told |= set(news)

    async def _end(self, socket: str, command: str) -> None:
        with contextlib.suppress(CommandRefused):  # it is gone meanwhile
            await runtime.order(socket, command)


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
