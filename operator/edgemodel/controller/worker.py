"""One pass for one key: gather, decide, apply, delete, evict, status, then Events and metrics.

Promises: a pass reads everything anew and can be cut off anywhere; what was not done is done by the next
one. Nothing is announced that was not written. Errors decide by their type: ``Transient`` comes back after
a backoff, ``Stalled`` becomes a condition and waits for a change, anything else is a bug: logged with its
traceback, tried again.

Leaves to others: when to run (``workqueue``), what to do (``reconcile``), how to write (``cluster``).
"""

import dataclasses
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from edgemodel.api.conditions import Reason
from edgemodel.api.v1alpha1 import EdgeModelStatus
from edgemodel.cluster.apply import apply_child, apply_status, delete_child
from edgemodel.cluster.artifacts import ArtifactCache
from edgemodel.cluster.client import ApiServer, Rejected
from edgemodel.cluster.events import EventRecorder
from edgemodel.cluster.gather import Gatherer
from edgemodel.cluster.kinds import EDGE_MODEL
from edgemodel.controller.edge_nodes import EdgeNodes
from edgemodel.controller.evictions import Evictions
from edgemodel.controller.gateway_routes import GatewayRoutes
from edgemodel.controller.metrics import Metrics
from edgemodel.controller.policy_status import PolicyStatus
from edgemodel.controller.sightings import Key
from edgemodel.errors import EdgeModelError, Stalled, Transient
from edgemodel.reconcile.decide import decide
from edgemodel.reconcile.decision import Decision, Event
from edgemodel.reconcile.observed import Observed, Unresolved

log = logging.getLogger(__name__)

REJECTED_AGAIN = 300.0
"""Seconds after which a child that was refused is sent again: a quota, an admission policy or a trust policy that swelled a
ConfigMap may have changed, none of which shows in the EdgeModel."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Rejection:
    """That the API server refused a child of one generation of one EdgeModel."""

    uid: str
    generation: int
    message: str
    again: datetime
    """When to send it again."""


class Worker:
    """Makes passes; callable as the work queue wants it."""

    def __init__(
        self,
        *,
        api: ApiServer,
        gatherer: Gatherer,
        artifacts: ArtifactCache,
        recorder: EventRecorder,
        metrics: Metrics,
        policies: PolicyStatus,
        edge_nodes: EdgeNodes | None = None,
        gateway: GatewayRoutes | None = None,
        clock: Callable[[], datetime],
    ) -> None:
        """``edge_nodes`` is None where no agents are to be told what to hold, ``gateway`` where there is none."""
        self._api = api
        self._gatherer = gatherer
        self._artifacts = artifacts
        self._recorder = recorder
        self._metrics = metrics
        self._policies = policies
        self._edge_nodes = edge_nodes
        self._gateway = gateway
        self._evictions = Evictions(api, metrics)
        self._clock = clock
        self._rejected: dict[Key, _Rejection] = {}

    async def __call__(self, key: Key) -> float | None:
        """Make one pass; return the seconds after which the next is due, if nothing happens before."""
        began = time.perf_counter()
        result = "error"
        try:
            wrote, after = False, None
            if key.kind == "ModelTrustPolicy":
                wrote = await self._policies.update(key.name, self._clock())
            elif key.kind == "EdgeNode":
                wrote = self._edge_nodes is not None and await self._edge_nodes.update(key.name)
            elif key.kind == "GatewayAccess":
                if self._gateway is not None:
                    wrote, after = await self._gateway.update_access()
            else:
                wrote, after = await self._model(key)
            result = "wrote" if wrote else "ok"
        except Transient as error:
            result = "retry"
            log.warning("pass put off", extra=_fields(key, reason=error.reason, error=error.message))
            raise
        except Stalled as error:
            # Could not even become a condition (the status itself was refused): the next change or resync tries again.
            result = "stalled"
            log.error(  # noqa: TRY400 - a message for a person, not a traceback
                "pass stalled", extra=_fields(key, reason=error.reason, error=error.message)
            )
            if key.kind == "EdgeNode":
                raise  # a node must not judge by yesterday's policies until somebody happens to change something
            return None
        except Exception:
            log.exception("pass failed", extra=_fields(key))
            raise
        else:
            return after
        finally:
            self._metrics.reconciles.labels(result).inc()
            self._metrics.seconds.observe(time.perf_counter() - began)

    async def _model(self, key: Key) -> tuple[bool, float | None]:
        observed = await self._gatherer.gather(key.namespace, key.name)
        if observed is None:
            self._metrics.forget(key.namespace, key.name)
            self._artifacts.forget(key.namespace, key.name)
            self._rejected.pop(key, None)
            self._evictions.forget(key)
            return False, None
        now = self._clock()
        observed = self._recall_rejection(key, observed, now)
        decision = decide(observed, now)
        claimed = await self._gatherer.claim(observed, decision.apply)
        if claimed is not observed:
            observed = claimed
            decision = decide(observed, now)
        wrote = await self._children(key, observed, decision, now)
        if wrote is None:
            # The API server found a child invalid: say so, and change nothing but status.
            observed = self._recall_rejection(key, observed, now)
            decision = dataclasses.replace(decide(observed, now), apply=(), delete=())
            wrote = False
        evicted = await self._evictions.carry_out(key, decision.evict)
        wrote = wrote or bool(evicted.events)
        status = observed.model.status
        if decision.status is not None:
            status = decision.status
            await apply_status(self._api, observed.model.metadata, status)
            wrote = True
        await self._announce(key, observed, (*decision.events, *evicted.events), status)
        rejection = self._rejected.get(key)
        again = (rejection.again - now).total_seconds() if rejection else None
        looks = self._artifacts.next_look(key.namespace, key.name)
        return wrote, _earliest(decision.requeue_after, looks, again, evicted.again)

    def _recall_rejection(self, key: Key, observed: Observed, now: datetime) -> Observed:
        rejection, judged = self._rejected.get(key), observed.model.metadata
        if rejection is None:
            return observed
        if (rejection.uid, rejection.generation) != (judged.uid, judged.generation) or now >= rejection.again:
            del self._rejected[key]
            return observed
        target = Unresolved(Reason.INVALID_SPEC, rejection.message, stalled=True)
        return dataclasses.replace(observed, target=target)

    async def _children(self, key: Key, observed: Observed, decision: Decision, now: datetime) -> bool | None:
        """Carry out the children's part; None when one was found invalid."""
        wrote = False
        for manifest in decision.apply:
            what = f"{manifest['kind']}/{manifest['metadata']['name']}"
            try:
                live = await apply_child(self._api, manifest)
            except Rejected as error:
                log.warning("child rejected", extra=_fields(key, child=what, error=error.message))
                message = f"the API server refuses {what}: {error.message}"[:1024]
                judged, again = observed.model.metadata, now + timedelta(seconds=REJECTED_AGAIN)
                self._rejected[key] = _Rejection(judged.uid, judged.generation, message, again)
                return None
            wrote = True
            log.info(
                "child applied",
                extra=_fields(key, child=what, resource_version=live["metadata"].get("resourceVersion")),
            )
        for ref in decision.delete:
            gone = not await delete_child(self._api, key.namespace, ref)
            wrote = True
            log.info("child deleted", extra=_fields(key, child=f"{ref.kind}/{ref.name}", gone_already=gone))
        return wrote

    async def _announce(
        self, key: Key, observed: Observed, events: tuple[Event, ...], status: EdgeModelStatus
    ) -> None:
        self._metrics.show(key.namespace, key.name, status)
        self._metrics.judged(observed.model.status, status)
        before, after = observed.model.status.rolled_back, status.rolled_back
        if after is not None and after != before and (before is None or before.at != after.at):
            self._metrics.rollbacks.labels(after.reason).inc()
        for event in events:
            log.info("event", extra=_fields(key, reason=event.reason, text=event.message))
            await self._record(key, observed, event)

    async def _record(self, key: Key, observed: Observed, event: Event) -> None:
        try:
            await self._recorder.record(observed.model.metadata, EDGE_MODEL.name, event, self._clock())
        except EdgeModelError as error:
            # An Event is a courtesy: the condition says the same, and stays.
            log.warning("event lost", extra=_fields(key, reason=event.reason, error=error.message))


def _fields(key: Key, **more: object) -> dict[str, object]:
    return {"kind": key.kind, "namespace": key.namespace, "object": key.name, **more}


def _earliest(*seconds: float | None) -> float | None:
    return min((value for value in seconds if value is not None), default=None)
