"""Writes Kubernetes Events: what happened, for ``kubectl describe`` and ``kubectl get events``.

One thing that happens twice is one Event with a count: its name is a hash of what it says. Whoever calls
decides *when* something happened (on a transition, after the status write); a failed Event is the caller's
to log, never to retry.
"""

import hashlib
from datetime import datetime

from edgemodel.api.meta import API_VERSION, CHILD_MANAGER, OwnerMetadata
from edgemodel.cluster.client import ApiServer, Conflict
from edgemodel.cluster.kinds import EVENT
from edgemodel.reconcile.decision import Event

_MESSAGE_LIMIT = 1024  # the API server refuses longer ones


class EventRecorder:
    """Writes Events in the name of one operator process."""

    def __init__(self, api: ApiServer, *, instance: str) -> None:
        self._api = api
        self._instance = instance

    async def record(self, owner: OwnerMetadata, kind: str, event: Event, now: datetime) -> None:
        """Write one Event about ``owner``, or count it up when the same thing was told before."""
        namespace = owner.namespace or "default"
        name = event_name(owner, event)
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": kind,
                "name": owner.name,
                "namespace": owner.namespace,
                "uid": owner.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:_MESSAGE_LIMIT],
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "source": {"component": CHILD_MANAGER},
            "reportingComponent": CHILD_MANAGER,
            "reportingInstance": self._instance,
        }
        try:
            await self._api.create(EVENT, manifest)
        except Conflict:
            live = await self._api.get(EVENT, namespace, name)
            count = int((live or {}).get("count") or 1) + 1
            await self._api.merge(EVENT, namespace, name, {"count": count, "lastTimestamp": stamp})


def event_name(owner: OwnerMetadata, event: Event) -> str:
    """Return the one name that this statement about this object has."""
    said = f"{owner.uid}\0{event.type}\0{event.reason}\0{event.message}"
    return f"{owner.name[:200]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
