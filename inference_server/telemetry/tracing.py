"""W3C trace context, and one OpenTelemetry span per inference where somebody collects them.

Promises: a `traceparent` that is not exactly of the standard's form counts as none. Spans are made only when the
`tracing` extra is installed and `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) is set; else OpenTelemetry
is not imported and tracing costs the data plane one `if`. Spans are made when a request is over, from the times
that were measured anyway, and sent by a thread; a collector that is away loses spans and costs no request.
Sampling, headers and TLS are OpenTelemetry's own variables: by default what the caller sampled, and all that
came without a context.

Source: W3C Trace Context, section 3.2 (traceparent); OpenTelemetry's environment variable specification.
"""

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from inference_server.telemetry.request_record import RequestRecord

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanProcessor

logger = logging.getLogger(__name__)

SERVICE_NAME = "edgemodel-inference-server"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_FLUSH_MILLISECONDS = 2000
_NANOSECONDS = 1_000_000_000

# Later versions may append fields after a dash; version 00 has none, and ff is forbidden.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_MOST_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where in which trace a request comes from.

    Attributes:
        trace_id: 32 hexadecimal digits, not all zero.
        parent_id: 16 of them, the caller's span.
        sampled: Whether the caller keeps its own span.
    """

    trace_id: str
    parent_id: str
    sampled: bool


def parse_traceparent(text: str) -> TraceContext | None:
    """Return the context that a `traceparent` states, None when it is not one."""
    if not text or len(text) > _MOST_CHARACTERS:
        return None
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if (version == "00" and more) or not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    return TraceContext(trace_id, parent_id, bool(int(flags, 16) & 1))


class Tracer(Protocol):
    """What the data plane needs of tracing."""

    def record(self, record: RequestRecord, context: TraceContext | None) -> None:
        """Tell of a request that has just ended."""

    def close(self) -> None:
        """Send what is left; blocks for two seconds at most."""


def open_tracer(environment: Mapping[str, str]) -> Tracer | None:
    """Return a tracer if somebody collects spans, else None."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not any(environment.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.warning(
            "no traces: OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed; "
            "install the extra, as in pip install 'edgemodel[server,tracing]'",
            extra={"fields": {"error": str(error)}},
        )
        return None
    name = environment.get("OTEL_SERVICE_NAME") or SERVICE_NAME
    return OpenTelemetryTracer(BatchSpanProcessor(OTLPSpanExporter()), name)


class OpenTelemetryTracer:
    """Makes spans out of records.

    Args:
        processor: What is done with a span.
        service: Name of this service in traces.
    """

    def __init__(self, processor: "SpanProcessor", service: str) -> None:
        from opentelemetry import trace as api
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._api = api
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("inference_server")

    def record(self, record: RequestRecord, context: TraceContext | None) -> None:
        """Make the span of a request that has just ended: its times are counted back from now."""
        api = self._api
        end = time.time_ns()
        start = end - int(record.total * _NANOSECONDS)
        parent = None
        if context is not None:
            parent = api.set_span_in_context(
                api.NonRecordingSpan(
                    api.SpanContext(
                        int(context.trace_id, 16),
                        int(context.parent_id, 16),
                        is_remote=True,
                        trace_flags=api.TraceFlags(int(context.sampled)),
                    )
                )
            )
        span = self._tracer.start_span(
            # A name that a client made up is no name of a span.
            f"infer {record.model}" if record.version else "infer",
            parent,
            kind=api.SpanKind.SERVER,
            start_time=start,
        )
        if span.is_recording():
            span.set_attributes(
                {
                    "inference.model": record.model if record.version else "",
                    "inference.version": record.version,
                    "inference.protocol": record.protocol,
                    "inference.code": record.code,
                    "inference.bytes_in": record.bytes_in,
                    "inference.bytes_out": record.bytes_out,
                }
            )
            if record.cache:
                span.set_attribute("inference.cache", record.cache)
            if record.rows:
                self._add_stages(span, record, start)
            if record.code.startswith("5"):
                span.set_status(api.StatusCode.ERROR)
        span.end(end)

    def close(self) -> None:
        """Send what is left; blocks for two seconds at most."""
        self._provider.force_flush(_FLUSH_MILLISECONDS)

    @staticmethod
    def _add_stages(span: "trace.Span", record: RequestRecord, start: int) -> None:
        """Mark when it began to wait and when it began to be computed, and for how long."""
        queued = start + int(record.decode * _NANOSECONDS)
        computed = queued + int(record.queue * _NANOSECONDS)
        span.add_event("queue", {"seconds": record.queue}, queued)
        span.add_event("compute", {"seconds": record.compute, "batch_rows": record.rows}, computed)
