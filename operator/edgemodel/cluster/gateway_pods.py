"""The gateway's pods: read once for many passes, and whether they answer at a model's port.

A gateway's restart concerns every EdgeModel at once, so passes share a reading (``shared`` tells why it is never older
than the event that brought a pass about); ``changed`` is told by the watch.

Leaves to others: what follows from it (``reconcile.gateway``), ports (``ports``), watching (``controller.gateway_routes``).
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from edgemodel.cluster.client import ApiServer, Object
from edgemodel.cluster.kinds import POD
from edgemodel.cluster.shared import Shared
from edgemodel.reconcile.observed import GatewayPod

PODS_SECONDS = 10.0
"""How long a reading may serve though no change was shown: the watch may lag."""
HAPROXY_PORT, AGENT_PORT = 8404, 8083
"""Where a pod that names no ports is asked."""
CONNECT_SECONDS = 1.0
"""How long a gateway pod gets to accept a connection."""


class Gateways:
    """Reads the gateway's pods.

    Args:
        api: the API server.
        namespace: where they run.
        labels: what they are known by; not empty.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        namespace: str,
        labels: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self.namespace = namespace
        self.labels = dict(labels)
        self._pods = Shared(self._read, max_age=PODS_SECONDS, clock=clock)
        self.silent: frozenset[str] = frozenset()
        """Uids of pods to which nobody is led for now, whatever their status says: they were asked, and did not answer."""

    def changed(self) -> None:
        """A pod of the gateway came, went, or changed in what ``traits`` tells."""
        self._pods.invalidate()

    async def read(self) -> tuple[GatewayPod, ...]:
        """Return every pod of the gateway that has an address and has not ended, by name; silent ones as not ready.

        Raises:
            Transient: the API server failed.
        """
        return without_silent(await self._pods.get(), self.silent)

    async def _read(self) -> tuple[GatewayPod, ...]:
        listed = await self._api.list(POD, self.namespace, labels=self.labels)
        found = (gateway_pod(pod) for pod in listed)
        return tuple(sorted((pod for pod in found if pod is not None), key=lambda pod: pod.name))


def gateway_pod(pod: Object) -> GatewayPod | None:
    """Return what passes need of a live pod; None while it has no address, or when it has ended."""
    meta, status = pod["metadata"], pod.get("status") or {}
    address = str(status.get("podIP") or "")
    if not address or status.get("phase") in ("Succeeded", "Failed"):
        return None
    conditions = status.get("conditions") or ()
    ports = {
        port.get("name"): port.get("containerPort")
        for container in (pod.get("spec") or {}).get("containers") or ()
        for port in container.get("ports") or ()
    }
    return GatewayPod(
        name=str(meta["name"]),
        uid=str(meta.get("uid", "")),
        address=address,
        node=str((pod.get("spec") or {}).get("nodeName") or ""),
        ready=any(it.get("type") == "Ready" and it.get("status") == "True" for it in conditions),
        going=bool(meta.get("deletionTimestamp")),
        haproxy_port=int(ports.get("haproxy") or HAPROXY_PORT),
        agent_port=int(ports.get("metrics") or AGENT_PORT),
    )


def without_silent(pods: tuple[GatewayPod, ...], silent: Collection[str]) -> tuple[GatewayPod, ...]:
    """Return the pods with those of these uids as not ready; all as they are where nobody would be left.

    Who finds nobody at all is likelier to be cut off himself.
    """
    told = tuple(replace(pod, ready=pod.ready and pod.uid not in silent) for pod in pods)
    return told if any(pod.ready and not pod.going for pod in told) else pods


async def listening(pods: Iterable[GatewayPod], port: int) -> tuple[GatewayPod, ...]:
    """Return the pods with ``listening`` told by whether each that takes requests accepts a connection at ``port``."""

    async def asked(pod: GatewayPod) -> GatewayPod:
        taking = pod.ready and not pod.going
        return replace(pod, listening=taking and await accepts(pod.address, port))

    return tuple(await asyncio.gather(*map(asked, pods)))


async def accepts(address: str, port: int) -> bool:
    """Tell whether somebody accepts a connection there within a second."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
