"""Pods and gateways that can be read, at addresses of their own on loopback, and one model that they belong to."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from edgemodel.api.conditions import Reason
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import EdgeModel, EdgeModelStatus, Slot, Slots
from edgemodel.artifact.digest import Digest
from edgemodel.controller.evidence import Evidence
from edgemodel.controller.sightings import Key
from edgemodel.controller.workqueue import WorkQueue
from edgemodel.gateway.shadow_comparison import Outcome
from edgemodel.gateway.shadow_metrics import ShadowMetrics, Trial
from edgemodel.reconcile.observed import GatewayPod, Observed, Settings, Unresolved
from edgemodel.rollout.evidence import CandidateEvidence
from inference_server.telemetry.metrics import Metrics

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
KEY = Key("EdgeModel", "vision", "detector")
PASSED = {"outcome": "Pass", "total": 2, "passed": 2, "failures": []}


@dataclass
class PodServer:
    """What listens at one address: the pages of an inference server, or whatever else a test wants."""

    version: str
    metrics: Metrics = field(default_factory=Metrics)
    golden: Any = field(default_factory=lambda: PASSED)
    page: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    asked: list[str] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, number: int, *, code: str = "200", seconds: float = 0.004) -> None:
        self.metrics.requests.labels("detector", self.version, "http", code).inc(number)
        for _ in range(number):
            self.metrics.request_duration.labels("detector", self.version, "http").observe(seconds)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.reached.set()
        if self.page is not None:
            return await self.page(request)
        if request.path == "/metrics":
            return web.Response(body=self.metrics.render())
        if self.golden is None:
            return web.Response(status=404)
        return web.Response(text=json.dumps(self.golden))


class GatewayServer(PodServer):
    """What listens at a gateway pod's address."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.registry = CollectorRegistry()
        self.shadow = ShadowMetrics(self.registry)
        self.trial = Trial("vision", "detector", str(NEW))
        self.shadow.follow([self.trial])
        self.page = self.write

    def count(self, outcome: Outcome, number: int = 1) -> None:
        for _ in range(number):
            self.shadow.count(self.trial, outcome)

    async def write(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=generate_latest(self.registry))


class Site:
    """One model whose pods are at 127.0.0.1, .2, .3 …, all at one port."""

    def __init__(self) -> None:
        self.servers: dict[str, PodServer] = {}
        self.pods: list[dict[str, Any]] = []
        self.gateways: list[GatewayPod] = []
        self.percent = 0
        self.port = 0
        self.queue: WorkQueue[Key] = WorkQueue()
        self.status = EdgeModelStatus(
            slots=Slots(
                active=Slot(digest=OLD, image=f"r.example/m@{OLD}", version="1"),
                candidate=Slot(digest=NEW, image=f"r.example/m@{NEW}", version="2"),
            ),
            rollout=RolloutStatus(step=1, steps=2, weight=10, step_since=NOW),
        )
        self.evidence = Evidence(self.queue, wall=lambda: NOW)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        return await self.servers[request.transport.get_extra_info("sockname")[0]].serve(request)

    def pod(self, name: str, version: str, *, ready: bool = True, **status: Any) -> PodServer:
        digest, address = (NEW if version == "2" else OLD), f"127.0.0.{len(self.pods) + 1}"
        server = {"name": "server", "state": {"running": {}}, "restartCount": 0}
        self.pods.append(
            {
                "metadata": {
                    "name": name,
                    "uid": f"uid-{name}",
                    "labels": {"edgemodel.io/digest": digest.short},
                },
                "spec": {},
                "status": {
                    "podIP": address,
                    "conditions": [{"type": "Ready", "status": str(ready)}],
                    "containerStatuses": [{**server, **status}],
                },
            }
        )
        self.servers[address] = PodServer(version)
        return self.servers[address]

    def move(self, step: int, weight: int) -> None:
        """Have the rollout at another step."""
        rollout = RolloutStatus(step=step, steps=2, weight=weight, step_since=NOW)
        self.status = self.status.model_copy(update={"rollout": rollout})

    def gateway(self, name: str) -> "GatewayServer":
        """Have one more pod of the gateway."""
        address = f"127.0.1.{len(self.gateways) + 1}"
        self.gateways.append(GatewayPod(name, f"uid-{name}", address, "node", ready=True))
        self.servers[address] = server = GatewayServer("")
        return server

    def observe(self) -> CandidateEvidence | None:
        meta = {"name": "detector", "namespace": "vision", "uid": "u"}
        spec = {"image": "r.example/m:1", "traffic": {"shadow": {"percent": self.percent}}}
        model = EdgeModel.model_validate({"metadata": meta, "spec": spec})
        return self.evidence.observe(
            Observed(
                model=model.model_copy(update={"status": self.status}),
                settings=Settings(server_image="s", node_image="n"),
                target=Unresolved(Reason.RECONCILING, ""),
                pods=tuple(self.pods),
                gateway=tuple(self.gateways) if self.percent else None,
            )
        )

    def seen(self) -> CandidateEvidence:
        found = self.observe()
        assert found is not None
        return found

    def passes(self) -> int:
        """Return how many passes are waiting, and forget them."""
        waiting = len(self.queue)
        self.queue = self.evidence._queue = WorkQueue()
        return waiting
