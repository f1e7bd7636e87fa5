"""Puts the node agent together, runs it, and ends it: what ``edgemodel node agent`` does.

Level-triggered: whatever happened meanwhile, it holds what the EdgeNode's spec says, by what is on disk. The last spec it
saw and what it said itself lie in ``<store>/edgenode.json``: with that it begins before the API server has answered, and
mounts and downloads go on while there is none.

Order of life: store → what is remembered → the driver's sockets and metrics → the API server. Whatever ends on its own that
should not ends the process, and Kubernetes starts it anew. On SIGTERM downloads stop where they are; mounts stay.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgemodel import __version__
from edgemodel.api.conditions import Reason, Statement, merge
from edgemodel.api.edge_node import Capabilities, EdgeNodeStatus, StoreUsage, models_ready, store_summary
from edgemodel.api.meta import Condition
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.sealing import SealingKey, new_key
from edgemodel.errors import EdgeModelError, Refused, Stalled
from edgemodel.kube_api import Object
from edgemodel.node import imports
from edgemodel.node.api_server import ApiServer
from edgemodel.node.arrivals import Arrivals
from edgemodel.node.board import Board
from edgemodel.node.capabilities import read_capabilities
from edgemodel.node.csi.server import CsiServer, serve
from edgemodel.node.edge_node_watch import edge_nodes
from edgemodel.node.entry import NodeSpec, read_spec
from edgemodel.node.heartbeat import beat
from edgemodel.node.limiter import Limiter
from edgemodel.node.metrics import Metrics
from edgemodel.node.rechecks import Rechecks
from edgemodel.node.report import Report, Status
from edgemodel.node.settings import AgentSettings
from edgemodel.node.site import Site
from edgemodel.node.small_file import read_small, write_small
from edgemodel.node.store import Held, NodeStore
from edgemodel.node.transfer import Transfers
from edgemodel.node.turnstile import Turnstile
from edgemodel.node.usage import Usage
from edgemodel.process import memory
from edgemodel.process.probes import ProbeServer

log = logging.getLogger(__name__)

MEMORY = "edgenode.json"
KEY = "agent.key"
COLLECT_SECONDS = 3600.0


class Agent:
    """One node's agent.

    Args:
        settings: what it is started with.
        api: the API server.
        store: root of the node's store.
        kubelet_dir: the kubelet's root directory.
        clock: this node's wall clock.
    """

    def __init__(
        self,
        settings: AgentSettings,
        api: ApiServer,
        *,
        store: Path,
        kubelet_dir: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._api = api
        self._kubelet_dir = kubelet_dir
        self._stop = asyncio.Event()
        self._why: str | None = None
        self._collect = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._csi: CsiServer | None = None
        self._loop = asyncio.get_running_loop()
        self._spec: Object | None = None
        self._generation = 0
        self._conditions: tuple[Condition, ...] = ()
        self._usage = Usage(0, 0, 0)
        self._remembered = b""
        self._store = NodeStore(store, budget=settings.store_budget, held=self._held)
        self._key = read_key(store / KEY)
        self._capabilities: Capabilities = read_capabilities(settings.execution_providers)
        self._connections = Connections(settings.registries)
        self._limiter = Limiter(settings.rate_limit)
        self._board = Board(api.now, self._said)
        self.metrics = Metrics(models=self._count)
        self._report = Report(self._status, self._write)
        self._arrivals = Arrivals(
            Site(
                node=api.node,
                store=self._store,
                transfers=Transfers(self._store, self._connections, limiter=self._limiter),
                connections=self._connections,
                board=self._board,
                metrics=self.metrics,
                key=self._key,
                downloads=Turnstile(settings.downloads),
                clock=clock,
            )
        )
        self._rechecks = Rechecks(
            self._arrivals, self._store, self.metrics, bytes_per_second=settings.recheck_rate, clock=clock
        )
        self._probes = ProbeServer(self.metrics.registry, healthy=self._unhealthy, ready=self._unready)

    def stop(self) -> None:
        """End, in order."""
        self._stop.set()

    async def run(self, *, started: Callable[[], None] = lambda: None) -> int:
        """Run until it is stopped; return the process's exit code.

        Args:
            started: called once everything is up.
        """
        self._usage = await asyncio.to_thread(self._store.usage)
        self._recall()
        try:
            self._csi = await serve(
                self._arrivals,
                kubelet_dir=self._kubelet_dir,
                node_name=self._api.node,
                models=self._store.root / "models",
                aside=self._store.root / "aside",
            )
            await self._probes.start(self._settings.host, self._settings.port)
            log.info("listening", extra={"port": self._probes.port, "version": __version__})
            self._begin("reports", self._report.run())
            self._begin("watch", self._follow())
            self._begin("heartbeat", beat(self._api, self._settings.heartbeat_seconds, heard=self._heard))
            self._begin("rechecks", self._rechecks.run())
            self._begin("collector", self._collector())
            started()
            await self._stop.wait()
        finally:
            await self._end()
        if self._why is not None:
            log.error("the agent ends: %s", self._why)
        return 1 if self._why is not None else 0

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._ended(name, done))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if self._stop.is_set() or task.cancelled():
            return
        self._why = f"{name} ended: {task.exception()!r}"
        log.error("%s ended on its own", name, exc_info=task.exception())
        self._stop.set()

    async def _end(self) -> None:
        self._stop.set()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._arrivals.close()
        if self._csi is not None:
            await self._csi.close()
        await self._probes.stop()
        await self._connections.aclose()

    # -- what is wanted ---------------------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Begin with what an earlier process saw and said."""
        try:
            document = json.loads(read_small(self._store.root / MEMORY))
            spec, status = document["spec"], document["status"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("%s cannot be used: %r", self._store.root / MEMORY, error)
            return
        self._remember_said(status)
        self._take(spec)

    async def _follow(self) -> None:
        async for found in edge_nodes(self._api):
            status = found.get("status")
            if self._spec is None:
                self._remember_said(status)
            self._report.known(status)
            if isinstance(status, dict) and not status and self._report.writes:
                self._report.unknown()  # made anew, and bare
            metadata = found.get("metadata")
            self._generation = int(metadata.get("generation") or 0) if isinstance(metadata, dict) else 0
            spec = found.get("spec") or {}
            if not spec and self._spec and self._generation <= 1:
                # Somebody deleted the EdgeNode and it was made anew, by us: that is not the operator's word.
                continue
            if spec != self._spec:
                self._take(spec)
                await self._remember()
            self._report.changed()

    def _take(self, spec: object) -> None:
        try:
            wanted = read_spec(spec)
        except Stalled as error:
            # What was wanted before goes on: a spec that nobody can read takes nothing away.
            log.error("%s", error)  # noqa: TRY400 - a message for a person
            return
        for problem in wanted.problems:
            log.error("passed over: %s", problem)
        self._spec = spec if isinstance(spec, dict) else {}
        self._adjust(wanted)
        self._arrivals.take(wanted.entries)
        self._collect.set()

    def _adjust(self, wanted: NodeSpec) -> None:
        self._limiter.rate = wanted.rate_limit or self._settings.rate_limit
        budget = wanted.store_budget if wanted.store_budget is not None else self._settings.store_budget
        self._store.budget = budget or None

    def _remember_said(self, status: object) -> None:
        self._board.remember(status)
        try:
            self._conditions = tuple(EdgeNodeStatus.model_validate(status or {}).conditions)
        except ValidationError as error:
            log.warning(
                "the status that was written earlier cannot be read: %d mistakes", error.error_count()
            )

    async def _remember(self) -> None:
        """Leave spec and status for the next process."""
        status = {
            "models": [_dump(line) for line in self._board.lines()],
            "conditions": [_dump(condition) for condition in self._conditions],
        }
        content = json.dumps({"spec": self._spec or {}, "status": status}).encode()
        if content == self._remembered:
            return
        try:
            await asyncio.to_thread(write_small, self._store.root / MEMORY, content, durable=True)
        except EdgeModelError as error:
            log.warning("the EdgeNode cannot be kept for the next start: %s", error)
        else:
            self._remembered = content

    # -- what is said -----------------------------------------------------------------------------------------------

    def _said(self, more_than_bytes: bool) -> None:
        self._report.changed()
        if more_than_bytes:
            self._collect.set()

    def _heard(self) -> None:
        self.metrics.heard.set_to_current_time()
        self._report.changed()  # what the kubelet said of the driver; nothing is written when all is as it was

    def _count(self, state: str) -> float:
        return sum(line.state == state for line in self._board.lines())

    async def _status(self) -> Status:
        lines = self._board.lines()
        full = [line.message for line in lines if line.reason == Reason.DISK_FULL]
        status = EdgeNodeStatus(
            agent_version=__version__,
            sealing_key=self._key.public,
            capabilities=self._capabilities,
            store=StoreUsage(
                used_bytes=self._usage.used,
                budget_bytes=self._usage.budget,
                free_bytes=self._usage.free,
                summary=store_summary(self._usage.used, self._usage.budget),
            ),
            models_ready=models_ready(lines),
            models=lines,
            conditions=self._judge_itself(full[0] if full else ""),
        )
        self._conditions = tuple(status.conditions)
        return _dump(status)

    async def _write(self, status: Status) -> None:
        # First here, then there: killed in between, the next process must not know less than the API server.
        await self._remember()
        await self._api.apply_status(status)

    def _judge_itself(self, full: str) -> list[Condition]:
        """Return the node's conditions; times move with status alone."""
        pressure: Statement = (
            ("DiskPressure", "True", Reason.DISK_FULL, full[:1024])
            if full
            else ("DiskPressure", "False", Reason.NONE, "models fit into the store")
        )
        unregistered = self._csi.problem if self._csi is not None else ""
        ready: Statement = (
            ("Ready", "False", Reason.NO_AGENT, f"the kubelet did not register the driver: {unregistered}")
            if unregistered
            else ("Ready", "True", Reason.SERVING, "models are delivered and mounted here")
        )
        generation, now = self._generation or None, self._api.now()
        return list(merge(self._conditions, [ready, pressure], generation=generation, now=now))

    # -- what is kept -----------------------------------------------------------------------------------------------

    async def _collector(self) -> None:
        """Keep the store in order, and know how full it is: after each change and once an hour."""
        while True:
            await self._keep_order()
            await asyncio.to_thread(memory.give_back)
            try:
                async with asyncio.timeout(COLLECT_SECONDS):
                    await self._collect.wait()
                    await asyncio.sleep(1.0)  # what changes together is looked at together
            except TimeoutError:
                pass
            self._collect.clear()

    async def _keep_order(self) -> None:
        assert self._csi is not None, "begun before"
        try:
            held = self._holding()
            gone = await asyncio.to_thread(self._store.collect, held.pinned, held.mounted)
            here = {arrival.entry.digest for arrival in self._arrivals if arrival.directory is not None}
            await asyncio.to_thread(imports.drop_used, self._store.root, held.pinned, here)
            self._usage = await asyncio.to_thread(self._store.usage)
        except EdgeModelError as error:
            log.warning("the store cannot be kept in order: %s", error)
            return
        if gone:
            log.info("evicted", extra={"artifacts": list(gone)})
        self.metrics.store.set(self._usage.used)
        self.metrics.budget.set(self._usage.budget)
        await self._remember()
        self._report.changed()

    def _holding(self) -> Held:
        return Held(
            self._arrivals.pinned, frozenset(self._csi.mounted()) if self._csi is not None else frozenset()
        )

    def _held(self) -> Held:
        """Return what must stay; asked by the store in a thread of its own."""

        async def ask() -> Held:
            return self._holding()

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(30)

    # -- how it is --------------------------------------------------------------------------------------------------

    def _unhealthy(self) -> str | None:
        return next((f"{name} has ended" for name, task in self._tasks.items() if task.done()), None)

    def _unready(self) -> str | None:
        return None if self._spec is not None else "this node's EdgeNode has not been seen yet"


def _dump(model: BaseModel) -> Object:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def read_key(path: Path) -> SealingKey:
    """Return the key that pull secrets are sealed to; a new one when there is none that can be read.

    Raises:
        Transient: ``DiskFull``, ``TransferFailed``.
    """
    try:
        return SealingKey.from_bytes(read_small(path))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, Refused) as error:
        log.warning("%s cannot be used, a new key takes its place: %s", path, error)
    key = new_key()
    write_small(path, key.to_bytes(), durable=True)
    return key
