"""Puts together what an operator needs to lead models' Services to a gateway: readings, the watch of its pods, who may call.

One object for all of it, because an operator has either all or none (the setting ``gateway``). The gateway itself is another
program, which takes weights and versions from EdgeModels; here it is only told who may call, and Services are led to it.
"""

import asyncio
import logging

from edgemodel.cluster.access import AccessSecret
from edgemodel.cluster.client import ApiServer, Object
from edgemodel.cluster.gateway_pods import Gateways, gateway_pod
from edgemodel.cluster.gateway_view import GatewayView
from edgemodel.cluster.kinds import POD
from edgemodel.cluster.ports import Ports
from edgemodel.controller.gateway_health import GatewayHealth
from edgemodel.controller.settings import OperatorSettings
from edgemodel.controller.sightings import Key, Sightings
from edgemodel.controller.workqueue import WorkQueue
from edgemodel.errors import Transient
from edgemodel.reconcile.observed import GatewayPod

log = logging.getLogger(__name__)

ACCESS = Key("GatewayAccess", "", "")
ACCESS_SECONDS = 30.0
"""Seconds between two looks at the Secrets that say who may call: who may read one by name may not watch it."""
SPECS_DELAY = 0.2
"""Seconds before they are looked at because an EdgeModel changed: a burst of new models is one pass."""
WATCH_AGAIN = 2.0
"""Seconds before a watch that failed is begun anew."""


class GatewayRoutes:
    """See the module's docstring; ``run`` watches the gateway's pods, ``health.run`` asks them."""

    def __init__(
        self,
        settings: OperatorSettings,
        api: ApiServer,
        queue: WorkQueue[Key],
        sightings: Sightings,
        *,
        namespace: str,
        again: float = WATCH_AGAIN,
    ) -> None:
        """``namespace`` is where the gateway's pods and its Secrets are."""
        namespaces = tuple(settings.namespaces)
        self._api = api
        self._queue = queue
        self._sightings = sightings
        self._gateways = Gateways(api, namespace=namespace, labels=settings.gateway_selector)
        self._access = AccessSecret(
            api, namespace=namespace, name=settings.gateway_access_secret, namespaces=namespaces
        )
        self.view = GatewayView(
            api, gateways=self._gateways, ports=Ports(api, namespaces=namespaces), access=self._access
        )
        self._again = again
        self._pods: dict[str, GatewayPod | None] = {}
        self.health = GatewayHealth(
            lambda: [pod for pod in self._pods.values() if pod is not None], self._silent
        )
        sightings.specs = lambda: queue.add_after(ACCESS, SPECS_DELAY)

    async def run(self) -> None:
        """Watch the gateway's pods for ever; each change is one pass of every EdgeModel."""
        self._queue.add(ACCESS)
        while True:
            try:
                await self._compare()
                async for kind, pod in self._api.watch(
                    POD, self._gateways.namespace, labels=self._gateways.labels
                ):
                    self.pod(kind, pod)
            except Transient as error:
                log.warning("watch of the gateway's pods begins anew", extra={"error": error.message})
                await asyncio.sleep(self._again)

    async def _compare(self) -> None:
        """Find out what changed while nothing was watched."""
        self._gateways.changed()
        found: dict[str, GatewayPod | None] = {pod.name: pod for pod in await self._gateways.read()}
        known = {name: pod for name, pod in self._pods.items() if pod is not None}
        self._pods = found
        if found != known:
            self._changed()

    def pod(self, kind: str, pod: Object) -> None:
        """A pod of the gateway was there, came, changed or went."""
        name = str(pod["metadata"]["name"])
        before = self._pods.pop(name, None)
        if kind != "DELETED":
            self._pods[name] = gateway_pod(pod)
        if self._pods.get(name) != before:
            self._changed()

    def _silent(self, uids: frozenset[str]) -> None:
        """Lead to no pod of these: their nodes are gone, or they are."""
        self._gateways.silent = uids
        self._changed()

    def _changed(self) -> None:
        self._gateways.changed()
        for model in self._sightings.models:
            self._queue.add(model)

    async def update_access(self) -> tuple[bool, float | None]:
        """Make one pass over who may call; return whether anything was written, and the seconds to the next.

        Raises:
            Transient: the API server failed, or the Secret is not there.
        """
        wrote, changed = await self._access.update()
        for namespace, name in changed:
            key = Key("EdgeModel", namespace, name)
            if self._sightings.knows(key):
                self._queue.add(key)
        return wrote, ACCESS_SECONDS if self._access.guarded else None
