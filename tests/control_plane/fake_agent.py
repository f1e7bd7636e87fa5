"""Does what a node and its agent would, as far as others can see: a Node, an EdgeNode, a Lease, and words in their status.

It downloads nothing and says that it did. A test decides by model how that goes, and whether the agent is heard of.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from edgemodel.api.applied import without_empty
from edgemodel.api.meta import API_VERSION, LEASE_PREFIX, NODE_MANAGER
from edgemodel.artifact.sealing import new_key, pull_secret_context, unpack_documents
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.kinds import EDGE_NODE, LEASE, NODE, Kind
from edgemodel.errors import EdgeModelError

log = logging.getLogger(__name__)

Object = dict[str, Any]
SILENCE = 4
"""Seconds after its last beat from which on it counts as offline."""
READY: Object = {"state": "Ready", "bytes": 1000, "total": 1000, "kind": "Full"}
HELD_BACK: Object = {"state": "Downloading", "bytes": 0, "total": 1000}


class FakeAgent:
    """One node with an agent."""

    def __init__(self, api: ApiServer, node: str, namespace: str) -> None:
        self._api = api
        self.node = node
        self._namespace = namespace
        self.key = new_key()
        self.fates: dict[str, Object] = {}
        """What to say of a version, by digest or by its model's name; that it is ready otherwise."""
        self.alive = True
        """False: neither beats nor status, as without a network. The node itself stays ready."""
        self.years_off = 0
        """How wrong its clock is."""
        self._said: object = None
        self._since: dict[tuple[str, str], str] = {}

    async def join(self) -> None:
        """Make the Node and the EdgeNode."""
        resources = {"cpu": "64", "memory": "256Gi", "pods": "500"}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.node, "labels": {"kubernetes.io/hostname": self.node}},
        }
        await self._api.apply(NODE, node, manager="tests")
        status: Object = {"capacity": resources, "allocatable": resources, "conditions": [self._ready()]}
        await self._api.merge(NODE, None, self.node, {"status": status}, subresource="status")
        await self._api.create(EDGE_NODE, self._object({"spec": {}}))

    async def leave(self) -> None:
        """Remove all of it."""
        await self.forget()
        await self._remove(LEASE, "kube-node-lease", self.node)
        await self._remove(NODE, None, self.node)

    async def forget(self) -> None:
        """Remove what the agent made."""
        await self._remove(EDGE_NODE, None, self.node)
        await self._remove(LEASE, self._namespace, f"{LEASE_PREFIX}{self.node}")

    async def _remove(self, kind: Kind, namespace: str | None, name: str) -> None:
        live = await self._api.get(kind, namespace, name)
        if live is not None:
            await self._api.delete(kind, namespace, name, uid=live["metadata"]["uid"])

    async def run(self) -> None:
        """Look after the EdgeNode for ever."""
        while True:
            try:
                # The kubelet's own sign of life, or the controller manager would call the node lost.
                await self._beat("kube-node-lease", self.node, 40)
                if self.alive:
                    await self._beat(self._namespace, f"{LEASE_PREFIX}{self.node}", SILENCE)
                for _ in range(5):
                    if self.alive:
                        await self._report()
                    await asyncio.sleep(0.2)
            except EdgeModelError as error:
                log.warning("agent of %s: %s", self.node, error)
                await asyncio.sleep(0.2)

    async def spec(self) -> Object:
        """Return the EdgeNode's spec."""
        live = await self._api.get(EDGE_NODE, None, self.node)
        assert live is not None, f"EdgeNode {self.node} is gone"
        return dict(live.get("spec") or {})

    async def wanted(self) -> dict[str, Object]:
        """Return the versions it is told to hold, by digest."""
        return {entry["digest"]: entry for entry in (await self.spec()).get("models") or ()}

    async def opened(self, digest: str) -> tuple[bytes, ...]:
        """Return the credentials that came with a version."""
        entry = (await self.wanted())[digest]
        context = pull_secret_context(self.node, entry["namespace"], entry["name"])
        return unpack_documents(self.key.open(entry["sealedPullSecrets"], context))

    async def _report(self) -> None:
        live = await self._api.get(EDGE_NODE, None, self.node)
        if live is None:
            return
        held = [self._held(entry) for entry in (live.get("spec") or {}).get("models") or ()]
        status = {"agentVersion": "fake", "sealingKey": self.key.public, "models": held}
        if status != self._said:
            await self._api.apply(
                EDGE_NODE,
                self._object({"status": without_empty(status)}),
                manager=NODE_MANAGER,
                subresource="status",
            )
            self._said = status

    def _held(self, entry: Object) -> Object:
        fate = self.fates.get(entry["digest"], self.fates.get(entry["name"], READY))
        key = (entry["digest"], fate["state"])
        since = self._since.setdefault(key, _now())
        return {field: entry[field] for field in ("namespace", "name", "digest")} | {"since": since} | fate

    async def _beat(self, namespace: str, name: str, seconds: int) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "holderIdentity": self.node,
                "leaseDurationSeconds": seconds,
                "renewTime": (datetime.now(UTC) + timedelta(days=365 * self.years_off)).strftime(
                    "%Y-%m-%dT%H:%M:%S.%fZ"
                ),
            },
        }
        await self._api.apply(LEASE, lease, manager="fake-agent")

    def _object(self, rest: Object) -> Object:
        return {"apiVersion": API_VERSION, "kind": "EdgeNode", "metadata": {"name": self.node}, **rest}

    def _ready(self) -> Object:
        times = {"lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
        return {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", **times}


@asynccontextmanager
async def agents(api: ApiServer, namespace: str, *nodes: str) -> AsyncIterator[tuple[FakeAgent, ...]]:
    """Run an agent on each of these nodes, and take all of it away afterwards."""
    made = tuple(FakeAgent(api, node, namespace) for node in nodes)
    for agent in made:
        await agent.join()
    tasks = [asyncio.create_task(agent.run()) for agent in made]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for agent in made:
            await agent.leave()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
