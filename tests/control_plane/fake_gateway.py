"""A pod of the gateway, as far as others can see: an object in the cluster, and an address that accepts connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from edgemodel.cluster.client import ApiServer, Conflict, Forbidden
from edgemodel.cluster.kinds import POD, SECRET
from tests.control_plane.fake_kubelet import NOW
from tests.control_plane.waiting import until

LABELS = {"test.edgemodel.io/component": "gateway"}
ACCESS = "gateway-access"


class FakeGateway:
    """One pod; its address is this machine's on the cluster's bridge, so that its ports are real ones."""

    def __init__(self, api: ApiServer, namespace: str, name: str, address: str, access: str) -> None:
        self._api = api
        self._namespace = namespace
        self.name = name
        self.address = address
        self.access = access
        self._listening: list[asyncio.Server] = []

    def settings(self) -> dict[str, Any]:
        """Return an operator's settings by which it finds this pod."""
        return {
            "gateway": True,
            "gatewayNamespace": self._namespace,
            "gatewaySelector": LABELS,
            "gatewayAccessSecret": self.access,
        }

    async def start(self) -> None:
        """Make the pod, ready."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self._namespace, "labels": LABELS},
            "spec": {
                "automountServiceAccountToken": False,
                "containers": [{"name": "gateway", "image": "none:1"}],
            },
        }

        async def made() -> bool:
            try:
                await self._api.create(POD, pod)
            except Forbidden:
                return False  # the namespace's account is not there yet
            except Conflict:
                return True
            return True

        await until(made, "the gateway's pod is made")
        await self.say(ready=True)

    async def say(self, *, ready: bool) -> None:
        """Tell whether it takes requests."""
        conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": NOW}]
        addresses = {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        status = {"phase": "Running", "conditions": conditions, **addresses}
        await self._api.merge(POD, self._namespace, self.name, {"status": status}, subresource="status")

    async def listen(self, port: int) -> None:
        """Answer for the model that has this port."""
        server = await asyncio.start_server(lambda _, writer: writer.close(), self.address, port)
        self._listening.append(server)

    async def stop(self) -> None:
        """Be gone."""
        for server in self._listening:
            server.close()
            await server.wait_closed()
        live = await self._api.get(POD, self._namespace, self.name)
        if live is not None:
            await self._api.delete(POD, self._namespace, self.name, uid=live["metadata"]["uid"], grace=0)


@asynccontextmanager
async def fake_gateway(
    api: ApiServer, namespace: str, kubeconfig: Path, *, name: str = "gateway-1", access: str = ACCESS
) -> AsyncIterator[FakeGateway]:
    """Run one, with the Secret of this name (``access``) that the chart would have made."""
    config = yaml.safe_load(kubeconfig.read_text())  # noqa: ASYNC240 - a small local file
    address = urlsplit(config["clusters"][0]["cluster"]["server"]).hostname
    assert address is not None
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": access, "namespace": namespace}}
    await api.apply(SECRET, secret, manager="helm")
    gateway = FakeGateway(api, namespace, name, address, access)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
