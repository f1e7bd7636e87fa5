"""The node agent's own few requests to the API server: its EdgeNode and its Lease.

Promises
- Nothing but the objects of this one node is asked for or written.
- ``now`` is the API server's time, as its last answer told it: the node's own clock may be years off, and others compare.

Leaves to others: what is in the objects, and when to try again (``edge_node_watch``, ``report``, ``heartbeat``).
"""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from edgemodel.api.applied import without_empty
from edgemodel.api.meta import API_VERSION, LEASE_PREFIX, NODE_MANAGER
from edgemodel.kube_api import Address, ApiFailed, Habits, KubeApi, Object, WatchExpired

HABITS = Habits(
    user_agent="edgemodel-node",
    max_bytes=8 << 20,  # etcd takes 1.5 MB an object
    connections=8,
    keepalive=(60, 15, 4),
)
_MANAGED = {"fieldManager": NODE_MANAGER}
_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


class ApiServer(KubeApi):
    """See the module's docstring; use as an async context manager.

    Args:
        address: where it is; the Lease is in its namespace.
        node: name of the Node.
    """

    def __init__(self, address: Address, node: str) -> None:
        super().__init__(address, HABITS)
        self.node = node
        self._told: tuple[datetime, float] | None = None
        self._lease_seconds = 0

    def heard(self, answer: httpx.Response) -> None:
        """Learn the time."""
        try:
            told = parsedate_to_datetime(answer.headers.get("Date", ""))
        except ValueError:
            return
        self._told = (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC), time.monotonic()

    def now(self) -> datetime:
        """Return the API server's time to the second; the node's while no answer has come yet."""
        if self._told is None:
            return datetime.now(UTC).replace(microsecond=0)
        told, at = self._told
        return (told + timedelta(seconds=time.monotonic() - at)).replace(microsecond=0)

    # -- its EdgeNode -----------------------------------------------------------------------------------------------

    @property
    def _edge_nodes(self) -> str:
        return f"/apis/{API_VERSION}/edgenodes"

    async def get_edge_node(self) -> Object | None:
        """Return this node's EdgeNode; None when there is none.

        Raises:
            ApiFailed: no answer, or not that one.
        """
        return await self.find("GET", f"{self._edge_nodes}/{self.node}", {})

    async def create_edge_node(self) -> Object | None:
        """Make this node's EdgeNode, with nothing in its spec; None when there is one by now."""
        document = {
            "apiVersion": API_VERSION,
            "kind": "EdgeNode",
            "metadata": {"name": self.node},
            "spec": {},
        }
        try:
            return await self.ask("POST", self._edge_nodes, _MANAGED, document)
        except ApiFailed as error:
            if error.status == HTTPStatus.CONFLICT:
                return None
            raise

    async def watch_edge_node(self, resource_version: str) -> AsyncGenerator[Object, None]:
        """Yield this node's EdgeNode each time it changes, and bookmarks (of which only metadata is of use), for 5 minutes.

        Raises:
            WatchExpired: it cannot go on from that version, or the object is gone.
            ApiFailed: the connection or the server failed.
        """
        query = {"fieldSelector": f"metadata.name={self.node}"}
        async with aclosing(self.events(self._edge_nodes, resource_version, query)) as events:
            async for kind, found in events:
                if kind == "DELETED":
                    raise WatchExpired("the EdgeNode was deleted")
                yield found | {"kind": "Bookmark"} if kind == "BOOKMARK" else found

    async def apply_status(self, status: Mapping[str, Any]) -> None:
        """Write this node's status, whole.

        Raises:
            ApiFailed: also when there is no EdgeNode (``status`` 404).
        """
        document = {
            "apiVersion": API_VERSION,
            "kind": "EdgeNode",
            "metadata": {"name": self.node},
            "status": without_empty(status),
        }
        path = f"{self._edge_nodes}/{self.node}/status"
        await self.ask("PATCH", path, _MANAGED | {"force": "true"}, document, content_type=_APPLY)

    # -- its Lease --------------------------------------------------------------------------------------------------

    async def renew_lease(self, seconds: int) -> None:
        """Say that this node is alive.

        Args:
            seconds: after which it counts as offline, for whoever reads the Lease.

        Raises:
            ApiFailed: no answer, or not that one.
        """
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        name = f"{LEASE_PREFIX}{self.node}"
        spec: Object = {"renewTime": self.now().strftime("%Y-%m-%dT%H:%M:%S.000000Z")}
        if seconds != self._lease_seconds:
            # An earlier process may have had another rhythm, and the Lease still says so.
            spec["leaseDurationSeconds"] = seconds
        if await self.find("PATCH", f"{leases}/{name}", {}, {"spec": spec}, content_type=_MERGE) is None:
            spec |= {"holderIdentity": self.node, "leaseDurationSeconds": seconds}
            document = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": spec,
            }
            await self.ask("POST", leases, {}, document)
        self._lease_seconds = seconds
