"""Asks the gateway's pods each second whether they are there: the cluster itself notices a lost node only after 40 s.

Promises
- A pod that accepts no connection twice in a row is led to no more: three seconds after its node went, in place of 40.
- It is led to again once it answers *and* says that it knows what is so now (``/current``). A gateway whose node was cut off
  goes on with what it knew, which may be a version that serves no more.
- The last one stays: who can reach nobody may be cut off himself. While there is only one, nothing is asked.
- It asks pods, never the API server, and says a word only when something changed.

Leaves to others: what becomes of the word (``gateway_routes``: passes, which write EndpointSlices).
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable

from edgemodel.cluster.gateway_pods import accepts
from edgemodel.reconcile.observed import GatewayPod

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
MISSES = 2
"""Connections in a row that are not accepted. One alone may be a lost packet."""
CURRENT_SECONDS = 5.0
"""How long a gateway gets to read everything anew."""
_MOST_BYTES = 4096


class GatewayHealth:
    """See the module's docstring.

    Args:
        pods: returns the gateway's pods, as the cluster tells of them.
        changed: told the uids of the pods that are not to be led to, whenever these change.
        interval: seconds between two looks.
    """

    def __init__(
        self,
        pods: Callable[[], Iterable[GatewayPod]],
        changed: Callable[[frozenset[str]], None],
        *,
        interval: float = LOOK_SECONDS,
    ) -> None:
        self._pods, self._changed, self._interval = pods, changed, interval
        self._missed: dict[str, int] = {}
        self._silent: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            began = asyncio.get_running_loop().time()
            await self.look()
            took = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(0.0, self._interval - took))

    async def look(self) -> None:
        """Ask each pod that is said to take requests, if there are several."""
        pods = tuple(self._pods())
        takers = tuple(pod for pod in pods if pod.ready and not pod.going)
        # What a pod knows that was not ready, its node's loss being noticed by the cluster too, may be old as well.
        silent = (self._silent & {pod.uid for pod in pods}) | {pod.uid for pod in pods if not pod.ready}
        self._missed = {pod.uid: self._missed.get(pod.uid, 0) for pod in takers}
        if len(takers) > 1:
            answers = await asyncio.gather(*(self._answers(pod, asked=pod.uid in silent) for pod in takers))
            for pod, answered in zip(takers, answers, strict=True):
                self._missed[pod.uid] = 0 if answered else self._missed[pod.uid] + 1
                if answered and pod.uid in silent:
                    silent -= {pod.uid}
                elif self._missed[pod.uid] >= MISSES:
                    silent |= {pod.uid}
        self._tell(frozenset(silent), takers)

    def _tell(self, silent: frozenset[str], takers: Collection[GatewayPod]) -> None:
        if silent == self._silent:
            return
        for pod in takers:
            if (pod.uid in silent) != (pod.uid in self._silent):
                words = "does not answer: it is led to no more" if pod.uid in silent else "answers"
                log.warning("a pod of the gateway %s", words, extra={"pod": pod.name, "on_node": pod.node})
        self._silent = silent
        self._changed(silent)

    async def _answers(self, pod: GatewayPod, *, asked: bool) -> bool:
        """Tell whether a pod is there; with ``asked``, also whether it knows what is so now."""
        return await accepts(pod.address, pod.haproxy_port) and (not asked or await _is_current(pod))


async def _is_current(pod: GatewayPod) -> bool:
    try:
        async with asyncio.timeout(CURRENT_SECONDS):
            reader, writer = await asyncio.open_connection(pod.address, pod.agent_port)
            try:
                writer.write(b"GET /current HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
                words = (await reader.read(_MOST_BYTES)).split(b" ", 2)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return False
    # 404: a gateway of before this was asked, which an upgrade is just replacing.
    return len(words) == 3 and words[0].startswith(b"HTTP/") and words[1] in (b"200", b"404")
