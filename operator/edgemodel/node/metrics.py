"""The node agent's own metrics; ``docs/reference/metrics.md`` explains each, a golden list pins the names."""

import functools
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each counter, asked for by nobody


class Metrics:
    """One process's metrics, in a registry of their own.

    Args:
        models: returns how many entries are in a state.
    """

    def __init__(self, *, models: Callable[[str], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.transferred = Counter(
            "edgemodel_node_transfer_bytes",
            "Bytes that came for models, by how: Full, Delta, Imported.",
            ("kind",),
            registry=self.registry,
        )
        self.saved = Counter(
            "edgemodel_node_transfer_saved_bytes",
            "Bytes of models that did not have to come.",
            registry=self.registry,
        )
        self.seconds = Histogram(
            "edgemodel_node_transfer_duration_seconds",
            "How long bringing a model took, from its turn to whole on disk.",
            ("kind",),
            buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400),
            registry=self.registry,
        )
        self.failures = Counter(
            "edgemodel_node_failures",
            "Tries to bring a model that failed, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.checks = Counter(
            "edgemodel_node_integrity_checks",
            "Models that were hashed again: ok, mismatch, error.",
            ("result",),
            registry=self.registry,
        )
        self.store = Gauge(
            "edgemodel_node_store_bytes", "Bytes that the store takes.", registry=self.registry
        )
        self.budget = Gauge(
            "edgemodel_node_store_budget_bytes", "Bytes that the store may take.", registry=self.registry
        )
        held = Gauge(
            "edgemodel_node_models",
            "Versions that this node is to hold, by state.",
            ("state",),
            registry=self.registry,
        )
        for state in ("Pending", "Downloading", "Verifying", "Ready", "Failed"):
            held.labels(state).set_function(functools.partial(models, state))
        self.heard = Gauge(
            "edgemodel_node_heartbeat_timestamp_seconds",
            "When the API server last took this node's sign of life, by this node's clock.",
            registry=self.registry,
        )
