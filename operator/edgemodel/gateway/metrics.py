"""The gateway's metrics: how its agent does. What requests do is told by HAProxy's own exporter."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from edgemodel.gateway.shadow_metrics import ShadowMetrics


class Metrics:
    """All metrics of one gateway, in a registry of their own."""

    def __init__(self, *, starts: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.shadow = ShadowMetrics(self.registry)
        self.routes = Gauge("edgemodel_gateway_routes", "Models that are led to.", registry=self.registry)
        self.left_out = Gauge(
            "edgemodel_gateway_routes_left_out",
            "Models that are not led to because their part of the configuration is not taken.",
            registry=self.registry,
        )
        self.slow_servers = Gauge(
            "edgemodel_gateway_slow_pods",
            "Pods that get less because they answer much later than the model's other pods.",
            registry=self.registry,
        )
        self.changes = Counter(
            "edgemodel_gateway_changes",
            "Changes by how they were made: by the runtime API, by a reload, by a start, or failed.",
            ("way",),
            registry=self.registry,
        )
        for way in ("runtime", "reload", "start", "failed"):
            self.changes.labels(way)
        self.duration = Histogram(
            "edgemodel_gateway_change_duration_seconds",
            "Time from the first word of a change to HAProxy's having made it, by how it was made.",
            ("way",),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=self.registry,
        )
        self.in_step = Gauge(
            "edgemodel_gateway_watching",
            "1 while EdgeModels and pods are followed, 0 while what was last known is used.",
            registry=self.registry,
        )
        restarts = Gauge(
            "edgemodel_gateway_haproxy_starts", "How often HAProxy was started.", registry=self.registry
        )
        restarts.set_function(starts)
