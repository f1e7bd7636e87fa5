"""How inference requests ended: a counter by status code, and a histogram of the time they took."""

from inference_server.telemetry.metrics import Metrics
from inference_server.telemetry.tallies import Count, Distribution
from inference_server.telemetry.tracing import parse_traceparent


class Outcomes:
    """Counts requests that have ended.

    Args:
        metrics: Where to count.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Looking a labelled child up costs more than the increment: kept.
        self._known: dict[tuple[str, str, tuple[str, str]], tuple[Count, Distribution]] = {}

    def count(
        self, protocol: str, code: str, labels: tuple[str, str], seconds: float | None, trace: str = ""
    ) -> None:
        """Count one request.

        Args:
            protocol: "http" or "grpc".
            code: Status that it ended with.
            labels: Model and version, empty for what this server does not have.
            seconds: From the complete request to its answer; None for one that never was complete.
            trace: W3C `traceparent` as it came, for exemplars; "" for none.
        """
        key = (protocol, code, labels)
        known = self._known.get(key)
        if known is None:
            metrics = self._metrics
            known = self._known[key] = (
                metrics.requests.labels(*labels, protocol, code),
                metrics.request_duration.labels(*labels, protocol),
            )
        requests, duration = known
        requests.inc()
        if seconds is None:
            return
        exemplar = None
        if trace and self._metrics.exemplars and (context := parse_traceparent(trace)) and context.sampled:
            exemplar = {"trace_id": context.trace_id}
        duration.observe(seconds, exemplar)
