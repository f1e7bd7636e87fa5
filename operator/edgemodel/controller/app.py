"""Puts the operator together, runs it, and ends it: what ``edgemodel operator`` does.

Order of life: metrics and health → leadership (if elections are on) → preflight → workers → kopf's watches.
Order of death: no new passes, running ones get a few seconds, then watches, then the Lease is given up.
Whatever ends on its own that should not (watches, a worker, leadership) ends the process, and Kubernetes
starts it anew: a restart at any moment is harmless, since every pass begins from what is.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import kopf

from edgemodel.artifact.registry_connections import Connections
from edgemodel.cluster.artifacts import ArtifactCache
from edgemodel.cluster.client import ApiServer, connect
from edgemodel.cluster.events import EventRecorder
from edgemodel.cluster.gather import Gatherer
from edgemodel.cluster.kinds import EDGE_MODEL, EDGE_NODE, MODEL_TRUST_POLICY, NODE
from edgemodel.cluster.lease import LeaseElection, LeaseTimes
from edgemodel.controller import handlers, preflight
from edgemodel.controller.evidence import Evidence
from edgemodel.controller.gateway_routes import GatewayRoutes
from edgemodel.controller.metrics import Metrics
from edgemodel.controller.node_delivery import NodeDelivery
from edgemodel.controller.policy_status import PolicyStatus
from edgemodel.controller.probes import ProbeServer
from edgemodel.controller.resync import Resync
from edgemodel.controller.settings import OperatorSettings, load
from edgemodel.controller.sightings import Key, Sightings
from edgemodel.controller.worker import Worker
from edgemodel.controller.workqueue import WorkQueue
from edgemodel.errors import EdgeModelError
from edgemodel.process import logs, memory

log = logging.getLogger(__name__)

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Operator:
    """One operator process."""

    def __init__(self, settings: OperatorSettings, api: ApiServer) -> None:
        self._settings = settings
        self._api = api
        self._stop = asyncio.Event()
        self._why: str | None = None
        self._ready = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._connections = Connections(settings.registry_settings())
        identity = f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{os.urandom(4).hex()}"
        self._queue: WorkQueue[Key] = WorkQueue()
        self._sightings = Sightings(self._queue)
        self.metrics = Metrics(depth=lambda: len(self._queue))
        self._election: LeaseElection | None = None
        if settings.leader_election:
            self._election = LeaseElection(
                api,
                namespace=settings.lease_namespace or own_namespace(),
                name=settings.lease_name,
                identity=identity,
                times=LeaseTimes(
                    settings.lease_duration, settings.lease_renew_deadline, settings.lease_retry
                ),
            )
            api.fence = self._election.leading
        artifacts = ArtifactCache(
            self._connections,
            changed=lambda namespace, name: self._queue.add(Key("EdgeModel", namespace, name)),
            counted=lambda result: self.metrics.verifications.labels(result).inc(),
        )
        self._nodes: NodeDelivery | None = None
        if settings.node_delivery:
            self._nodes = NodeDelivery(
                settings,
                api,
                self._queue,
                self._sightings,
                self.metrics,
                lease_namespace=settings.node_namespace or own_namespace(),
                clock=_now,
            )
        self._gateway: GatewayRoutes | None = None
        if settings.gateway:
            self._gateway = GatewayRoutes(
                settings,
                api,
                self._queue,
                self._sightings,
                namespace=settings.gateway_namespace or own_namespace(),
            )
        self._evidence = Evidence(self._queue, wall=_now)
        gatherer = Gatherer(
            api,
            artifacts,
            settings=settings.children(),
            registries=settings.registry_settings(),
            fleet=self._nodes.fleet if self._nodes else None,
            gateway=self._gateway.view if self._gateway else None,
            evidence=self._evidence,
        )
        self._worker = Worker(
            gatherer=gatherer,
            artifacts=artifacts,
            api=api,
            recorder=EventRecorder(api, instance=identity.rpartition("_")[0]),
            metrics=self.metrics,
            policies=PolicyStatus(api, namespaces=tuple(settings.namespaces)),
            edge_nodes=self._nodes.passes if self._nodes else None,
            gateway=self._gateway,
            clock=_now,
        )
        self._artifacts = artifacts
        self._resync = Resync(
            api,
            self._queue,
            self._sightings,
            edge_nodes=lambda: self._nodes.sightings.edge_nodes if self._nodes else (),
            namespaces=tuple(settings.namespaces),
            interval=settings.resync_interval,
        )
        self._probes = ProbeServer(self.metrics.registry, healthy=self._unhealthy, ready=self._unready)

    def stop(self) -> None:
        """Ask the operator to end."""
        self._stop.set()

    async def run(self) -> int:
        """Run until stopped; return the process's exit code."""
        settings = self._settings
        await self._probes.start(settings.host, settings.port)
        log.info("serving metrics and health", extra={"port": self._probes.port})
        try:
            if self._election is not None and not await self._lead(self._election):
                return 0
            await self._act()
        finally:
            await self._shut_down()
        return 1 if self._why else 0

    async def _lead(self, election: LeaseElection) -> bool:
        log.info("standing by for the lease")
        self._ready = True
        acquiring = asyncio.ensure_future(election.acquire())
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({acquiring, stopping}, return_when=asyncio.FIRST_COMPLETED)
        led = acquiring.done()
        for task in (acquiring, stopping):
            task.cancel()
        await asyncio.gather(acquiring, stopping, return_exceptions=True)
        if not led:
            return False
        acquiring.result()
        log.info("leading")
        self._spawn("leadership", election.hold())
        return True

    async def _act(self) -> None:
        settings = self._settings
        namespaces = tuple(settings.namespaces)
        own = (EDGE_MODEL, MODEL_TRUST_POLICY)
        if self._nodes is None:
            await preflight.check(self._api, handlers.WATCHED, namespaces, own=own)
        else:
            await preflight.check(self._api, (*handlers.WATCHED, NODE), namespaces, own=(*own, EDGE_NODE))
        self.metrics.leading.set(1)
        # Workers first: at its end kopf cancels every task of the loop that is younger than itself.
        for number in range(settings.workers):
            self._spawn(f"worker {number}", self._queue.run(self._worker))
        self._spawn("resync", self._resync.run())
        self._spawn("evidence", self._evidence.run())
        if self._nodes is not None:
            self._spawn("heartbeats", self._nodes.heartbeats.run())
        if self._gateway is not None:
            self._spawn("gateway's pods", self._gateway.run())
            self._spawn("gateway's health", self._gateway.health.run())
        watches_stop = asyncio.Event()
        started = asyncio.Event()
        registry = handlers.register(
            self._sightings,
            self._api.credentials,
            lambda: self._started(started),
            self._nodes.sightings if self._nodes else None,
        )
        self._spawn(
            "watches",
            kopf.operator(
                registry=registry,
                settings=handlers.settings(),
                standalone=True,
                # Never used without peering, yet kopf's default asks for the user's name, and uid 65532 has none.
                identity=cast("Any", "edgemodel-operator"),
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=watches_stop,
            ),
        )
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({stopping, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        self._note_end()
        stopping.cancel()
        self._ready = False
        # The probe server's connections are tasks younger than kopf, which would wait for them.
        await self._probes.stop()
        if not await self._queue.stop(settings.shutdown_timeout):
            log.warning("passes cut short", extra={"count": self._queue.working})
        await self._artifacts.close()
        watches_stop.set()
        await asyncio.wait({self._tasks["watches"]}, timeout=5.0)

    def _started(self, started: asyncio.Event) -> None:
        # Not now but in the loop's next round: kopf puts its own signal handlers in place between the two, and ours
        # must win, since they end the passes before the watches.
        asyncio.get_running_loop().call_soon(install_signal_handlers, self)
        started.set()
        self._ready = True
        memory.settle()
        log.info("watching", extra={"namespaces": list(self._settings.namespaces) or "all"})

    def _note_end(self) -> None:
        for name, task in self._tasks.items():
            if task.done():
                error = None if task.cancelled() else task.exception()
                if name == "watches" and error is None:
                    continue  # kopf ends in peace only when it was told to
                self._why = f"{name} ended: {error!r}" if error else f"{name} ended"
                log.error("operator ends", extra={"cause": self._why})
        if self._why is None:
            log.info("operator stops")

    async def _shut_down(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._election is not None:
            with contextlib.suppress(EdgeModelError):
                await self._election.release()
        await self._probes.stop()
        await self._artifacts.close()
        await self._evidence.close()
        await self._connections.aclose()
        await self._api.close()

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.create_task(work, name=name)

    def _unhealthy(self) -> str | None:
        ended = [name for name, task in self._tasks.items() if task.done()]
        return f"{ended[0]} ended" if ended else self._resync.blind

    def _unready(self) -> str | None:
        return None if self._ready else "starting or stopping"


def install_signal_handlers(operator: Operator) -> None:
    """End the operator in good order on SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, operator.stop)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def own_namespace() -> str:
    """Return the namespace this process runs in: its pod's, else ``$POD_NAMESPACE``, else ``default``."""
    if _NAMESPACE_FILE.is_file():
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    return os.environ.get("POD_NAMESPACE") or "default"


async def run(
    settings: OperatorSettings, *, kubeconfig: Path | None = None, context: str | None = None
) -> int:
    """Connect and run one operator until it is stopped; return the process's exit code."""
    api = await connect(kubeconfig=kubeconfig, context=context)
    operator = Operator(settings, api)
    install_signal_handlers(operator)
    return await operator.run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``edgemodel operator``: 0 after a wanted end, 1 after a failure, 2 for wrong settings."""
    parser = argparse.ArgumentParser(prog="edgemodel operator", description="Run the EdgeModel operator.")
    parser.add_argument("--settings", type=Path, help="YAML file of settings; $EDGEMODEL_SETTINGS otherwise")
    parser.add_argument("--kubeconfig", type=Path, help="kubeconfig to use outside a cluster")
    parser.add_argument("--context", help="context of the kubeconfig")
    arguments = parser.parse_args(argv)
    memory.return_what_is_freed()
    logs.configure("info")
    try:
        settings = load(arguments.settings)
    except EdgeModelError as error:
        log.error("%s", error.message)  # noqa: TRY400 - a message for a person, not a traceback
        return 2
    logs.configure(settings.log_level)
    try:
        return asyncio.run(run(settings, kubeconfig=arguments.kubeconfig, context=arguments.context))
    except (EdgeModelError, OSError) as error:
        log.error("operator cannot run: %s", error)  # noqa: TRY400 - a message for a person, not a traceback
        return 1


if __name__ == "__main__":
    sys.exit(main())
