"""The operator's own metrics; ``docs/reference/metrics.md`` explains each, a golden list pins the names.

Gauges about models are kept as the models' last status and turned into samples only when scraped: a hundred
models cost a hundred small tuples, not thousands of metric objects, and a deleted model leaves nothing
behind.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from edgemodel.api.v1alpha1 import EdgeModelStatus

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each counter, asked for by nobody

_STATUSES = ("True", "False", "Unknown")


@dataclass(frozen=True, slots=True)
class _Shown:
    version: str
    digest: str
    conditions: tuple[tuple[str, str], ...]
    weight: int | None


class _Models(Collector):
    """``edgemodel_info``, ``edgemodel_condition`` and ``edgemodel_rollout_weight_ratio`` of every known model."""

    def __init__(self) -> None:
        self.shown: dict[tuple[str, str], _Shown] = {}

    def collect(self) -> Iterable[Metric]:
        info = GaugeMetricFamily(
            "edgemodel_info",
            "Version and digest that an EdgeModel serves; always 1.",
            labels=("namespace", "name", "version", "digest"),
        )
        condition = GaugeMetricFamily(
            "edgemodel_condition",
            "1 for the status that a condition of an EdgeModel has, 0 for the others.",
            labels=("namespace", "name", "type", "status"),
        )
        weight = GaugeMetricFamily(
            "edgemodel_rollout_weight_ratio",
            "Share of requests that a candidate gets now, from 0 to 1.",
            labels=("namespace", "name"),
        )
        for (namespace, name), shown in self.shown.items():
            if shown.weight is not None:
                weight.add_metric((namespace, name), shown.weight / 100)
            if shown.digest:
                info.add_metric((namespace, name, shown.version, shown.digest), 1)
            for kind, actual in shown.conditions:
                for status in _STATUSES:
                    condition.add_metric((namespace, name, kind, status), float(status == actual))
        return (info, condition, weight)


class Metrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self, *, depth: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._models = _Models()
        self.registry.register(self._models)
        # CPU and memory of the process, under the names every Prometheus client library uses.
        ProcessCollector(registry=self.registry)
        self.reconciles = Counter(
            "edgemodel_reconcile",
            "Passes, by how they ended: ok, wrote, retry, stalled, error.",
            ("result",),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "edgemodel_reconcile_duration_seconds",
            "How long a pass took, waiting for the registry included.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        Gauge(
            "edgemodel_workqueue_depth", "Keys that wait for a worker.", registry=self.registry
        ).set_function(depth)
        self.verifications = Counter(
            "edgemodel_signature_verifications",
            "Judgements of an artifact under the policies of the moment, by the reason they ended with.",
            ("result",),
            registry=self.registry,
        )
        self.rollbacks = Counter(
            "edgemodel_rollbacks",
            "Versions that were tried and taken back, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.gate_results = Counter(
            "edgemodel_gate_results",
            "Results that a test of the gate came to, counted when a step begins and when one changes.",
            ("gate", "result"),
            registry=self.registry,
        )
        self.nodes = Gauge(
            "edgemodel_nodes",
            "Nodes of the cluster: online, offline (the agent is silent, or the node not ready), without_agent.",
            ("state",),
            registry=self.registry,
        )
        self.evictions = Counter(
            "edgemodel_pod_evictions",
            "Pods told to go because files they read were altered: evicted, deleted, withheld (a budget forbade it yet).",
            ("result",),
            registry=self.registry,
        )
        self.leading = Gauge(
            "edgemodel_leader", "1 while this replica acts, 0 while it stands by.", registry=self.registry
        )

    def show(self, namespace: str, name: str, status: EdgeModelStatus) -> None:
        """Take over a model's status as it now stands."""
        active = status.slots.active
        self._models.shown[namespace, name] = _Shown(
            version=active.version if active else "",
            digest=active.digest if active else "",
            conditions=tuple((condition.type, condition.status) for condition in status.conditions),
            weight=status.rollout.weight if status.rollout is not None else None,
        )

    def judged(self, before: EdgeModelStatus, after: EdgeModelStatus) -> None:
        """Count results of the gate that are new in a status that was written."""
        if after.rollout is None:
            return
        known = set()
        if before.rollout is not None and _step(before) == _step(after):
            known = {(one.name, one.result) for one in before.rollout.gate}
        for one in after.rollout.gate:
            if (one.name, one.result) not in known:
                self.gate_results.labels(one.name, one.result).inc()

    def forget(self, namespace: str, name: str) -> None:
        """Drop every series of a model that is gone."""
        self._models.shown.pop((namespace, name), None)

    def names(self) -> Iterator[str]:
        """Every metric's name with its labels, as the golden list has it."""
        for metric in self.registry.collect():
            yield metric.name


def _step(status: EdgeModelStatus) -> tuple[object, ...]:
    """Return what tells one step of one rollout from another."""
    candidate, rollout = status.slots.candidate, status.rollout
    return candidate and candidate.digest, rollout and rollout.step, rollout and rollout.step_since
