"""What one pass sees of the gateway: its pods, the model's port, and whether anybody can be let in.

One object for all of it, because an operator has either all or none (the setting ``gateway``).
"""

import asyncio
import dataclasses

from edgemodel.cluster.access import AccessSecret, read_entry
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.gateway_pods import Gateways, listening
from edgemodel.cluster.ports import Ports
from edgemodel.reconcile.gateway import Way, way
from edgemodel.reconcile.observed import Observed


class GatewayView:
    """See the module's docstring."""

    def __init__(self, api: ApiServer, *, gateways: Gateways, ports: Ports, access: AccessSecret) -> None:
        self._api = api
        self._ports = ports
        self.gateways = gateways
        self.access = access

    async def observe(self, observed: Observed, made: str) -> Observed:
        """Return ``observed`` with what there is to say of the gateway.

        Args:
            observed: the model, its children and pods.
            made: the EdgeModel's creationTimestamp.

        Raises:
            Transient: the API server failed.
        """
        model = observed.model
        pods, port, entry = await asyncio.gather(
            self.gateways.read(),
            self._ports.port(model, made),
            read_entry(self._api, model.metadata.namespace, model.spec.access),
        )
        unseen = tuple(dataclasses.replace(pod, listening=False) for pod in pods)
        seen = dataclasses.replace(
            observed, gateway=unseen, gateway_port=port, closed="" if entry is None else entry.problem
        )
        if way(seen) is Way.PODS and port is not None:
            # A live Service leads to pods: it leaves them only for a gateway that surely answers in their place.
            return dataclasses.replace(seen, gateway=await listening(pods, port))
        return seen

    def forget(self, namespace: str, name: str) -> None:
        """The EdgeModel is gone."""
        self._ports.forget(namespace, name)
