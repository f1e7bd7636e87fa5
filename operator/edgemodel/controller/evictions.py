"""Has pods go whose model's files were altered under them: gently first, and in any case.

Why not wait as long as a budget likes: what such a pod answers with is no longer what anybody signed, and trust fails
closed. Why gently first: the budget lets one pod go at a time, so that where several serve, the others answer meanwhile;
with one replica our own budget allows it at once. A pod that a budget (ours, while another of its pods is down, or a
stranger's) still holds after ``PATIENCE`` seconds is deleted. Its successor cannot start on the altered files: the node's
agent gives nobody a model that it has found altered until it is whole again.

Kept in memory: since when each pod is held back; a restarted operator waits anew. A failure is no reason to keep back the
status that tells of it: it is logged, and tried again.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgemodel.cluster.client import ApiServer, Withheld
from edgemodel.cluster.kinds import POD
from edgemodel.controller.metrics import Metrics
from edgemodel.controller.sightings import Key
from edgemodel.errors import EdgeModelError
from edgemodel.reconcile.decision import Event, PodRef

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds that a budget may hold back a pod."""
AGAIN = 5.0
"""Seconds after which a pod that is held back, or could not be evicted, is tried again."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """What came of it."""

    events: tuple[Event, ...] = ()
    again: float | None = None
    """Seconds until some are to be tried again."""


class Evictions:
    """Carries out ``Decision.evict``."""

    def __init__(
        self, api: ApiServer, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._metrics = metrics
        self._clock = clock
        self._withheld: dict[Key, dict[str, float]] = {}
        """By model and pod's uid: since when a budget holds it back."""

    async def carry_out(self, key: Key, pods: Sequence[PodRef]) -> Evicted:
        """Tell these pods of one model to go."""
        before = self._withheld.pop(key, {})
        events, again = [], None
        for pod in pods:
            since = before.get(pod.uid, self._clock())
            try:
                done = await self._tell(key.namespace, pod, since)
            except EdgeModelError as error:
                log.warning("pod not evicted", extra=_fields(key, pod, error=error.message))
                done = None
            if done is None:
                self._withheld.setdefault(key, {})[pod.uid] = since
                again = AGAIN
                continue
            log.warning("pod told to go", extra=_fields(key, pod, how=done))
            where = f"Pod {pod.name} on node {pod.node}"
            why = "its model's files there are no longer what was verified"
            events.append(Event("Warning", "PodEvicted", f"{where} was told to go: {why} ({pod.reason})."))
        return Evicted(tuple(events), again)

    def forget(self, key: Key) -> None:
        """Drop what is remembered of a model that is gone."""
        self._withheld.pop(key, None)

    async def _tell(self, namespace: str, pod: PodRef, since: float) -> str | None:
        """Return how it went, or None while a budget holds it back."""
        try:
            await self._api.evict(namespace, pod.name, uid=pod.uid)
            how = "evicted"
        except Withheld:
            if self._clock() - since < PATIENCE:
                self._metrics.evictions.labels("withheld").inc()
                return None
            await self._api.delete(POD, namespace, pod.name, uid=pod.uid)
            how = "deleted"
        self._metrics.evictions.labels(how).inc()
        return how


def _fields(key: Key, pod: PodRef, **more: object) -> dict[str, object]:
    return {"namespace": key.namespace, "object": key.name, "pod": pod.name, "node": pod.node, **more}
