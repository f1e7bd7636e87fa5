"""Does what a kubelet would to the pods of models: runs nothing, and says in their status how it went.

The real controller manager makes the pods; without a node nobody would ever say that they are ready. A test decides by
model how its pods fare.
"""

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edgemodel.api.meta import LABEL_DIGEST, LABEL_MODEL, LABELS_MANAGED
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.kinds import POD
from edgemodel.errors import EdgeModelError

log = logging.getLogger(__name__)

NOW = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Failure:
    """How a container ended: ``fetch`` or ``server``, with its termination message."""

    container: str
    reason: str
    message: str = "simulated"

    def status(self) -> dict[str, Any]:
        said = json.dumps({"reason": self.reason, "message": self.message})
        terminated = {"exitCode": 1, "reason": "Error", "message": said}
        return {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": terminated}}


class FakeKubelet:
    """Sets the status of every model's pods."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self.fates: dict[tuple[str, str], Failure | None] = {}
        """By namespace and model, or by namespace and digest label: None keeps the pods pending."""
        self._done: dict[str, object] = {}

    async def run(self) -> None:
        """Look after pods for ever."""
        while True:
            try:
                pods = await self._api.list(POD, labels=LABELS_MANAGED)
            except EdgeModelError as error:
                log.warning("pods not listed: %s", error)
                pods = ()
            for pod in pods:
                try:
                    await self._look_after(pod)
                except EdgeModelError as error:
                    log.info("pod went while it was looked after: %s", error)
            await asyncio.sleep(0.1)

    async def _look_after(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        namespace, labels = meta["namespace"], meta["labels"]
        if meta.get("deletionTimestamp") and pod["spec"].get("nodeName"):
            # A pod that has a node is gone only when its kubelet says so; without one deletion is immediate.
            await self._api.delete(POD, namespace, meta["name"], uid=meta["uid"], grace=0)
            return
        ready: object = "ready"
        fate = self.fates.get(
            (namespace, labels.get(LABEL_DIGEST, "")),
            self.fates.get((namespace, labels.get(LABEL_MODEL, "")), ready),
        )
        told = self._done.get(meta["uid"]) == fate and not _called_unschedulable(pod)
        if fate is None or meta.get("deletionTimestamp") or told:
            return
        status = _ready(pod) if fate == ready else _failing(pod, fate)
        await self._api.merge(POD, namespace, meta["name"], {"status": status}, subresource="status")
        self._done[meta["uid"]] = fate


def _called_unschedulable(pod: dict[str, Any]) -> bool:
    """Tell whether the scheduler, which knows of no node, spoke after this kubelet had."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(it["type"] == "PodScheduled" and it["status"] == "False" for it in conditions)


def _condition(kind: str, status: str) -> dict[str, str]:
    return {"type": kind, "status": status, "lastTransitionTime": NOW}


def _container(name: str, pod: dict[str, Any], **status: Any) -> dict[str, Any]:
    spec = {
        container["name"]: container
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
    }
    return {
        "name": name,
        "image": spec[name]["image"],
        "imageID": "",
        "restartCount": 3,
        "ready": False,
        **status,
    }


def _ready(pod: dict[str, Any]) -> dict[str, Any]:
    return {
        "phase": "Running",
        "podIP": "10.42.7.7",
        "podIPs": [{"ip": "10.42.7.7"}],
        "conditions": [
            _condition(kind, "True") for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "startTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "initContainerStatuses": [
            _container(
                one["name"], pod, state={"terminated": {"exitCode": 0, "reason": "Completed"}}, ready=True
            )
            for one in pod["spec"].get("initContainers", ())
        ],
        "containerStatuses": [
            _container("server", pod, state={"running": {"startedAt": NOW}}, ready=True, started=True)
        ],
    }


def _failing(pod: dict[str, Any], fate: Failure) -> dict[str, Any]:
    status: dict[str, Any] = {
        "phase": "Pending" if fate.container == "fetch" else "Running",
        "conditions": [_condition("PodScheduled", "True"), _condition("Ready", "False")],
    }
    if fate.container == "fetch":
        status["initContainerStatuses"] = [_container("fetch", pod, **fate.status())]
    else:
        done = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}, "ready": True}
        status["initContainerStatuses"] = [_container("fetch", pod, **done)]
        status["containerStatuses"] = [_container("server", pod, **fate.status())]
    return status
