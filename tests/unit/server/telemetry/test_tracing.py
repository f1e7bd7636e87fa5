"""Trace context, strictly; spans for a collector; and nothing at all without one."""

import gzip
import http.server
import logging
import sys
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from inference_server.telemetry.request_record import RequestRecord
from inference_server.telemetry.tracing import (
    OpenTelemetryTracer,
    TraceContext,
    open_tracer,
    parse_traceparent,
)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RECORD = RequestRecord(
    "detector", "3", "http", "17", "200", 0.5, 0.125, 0.0625, 0.25, 8, 1024, 40, trace=TRACE, cache="miss"
)


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-03", True),  # another flag beside it
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
    ],
)
def test_a_context_of_the_standard_is_taken(text, sampled):
    assert parse_traceparent(text) == TraceContext(TRACE, PARENT, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01\n",
        f" 00-{TRACE}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-0g",
        f"00-{TRACE[:-1]}٣-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-" + "x" * 1000,
    ],
)
def test_anything_else_is_none(text):
    assert parse_traceparent(text) is None


def spans_of(*records_and_contexts):
    exporter = InMemorySpanExporter()
    tracer = OpenTelemetryTracer(SimpleSpanProcessor(exporter), "edge")
    for record, context in records_and_contexts:
        tracer.record(record, context)
    return exporter.get_finished_spans()


def test_a_span_continues_the_callers_trace_and_shows_its_stages():
    (span,) = spans_of((RECORD, TraceContext(TRACE, PARENT, True)))
    assert (span.name, span.kind) == ("infer detector", SpanKind.SERVER)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.end_time - span.start_time == 500_000_000
    offsets = {event.name: event.timestamp - span.start_time for event in span.events}
    assert offsets == {"queue": 125_000_000, "compute": 187_500_000}
    assert span.attributes["inference.cache"] == "miss"
    assert span.resource.attributes["service.name"] == "edge"
    assert span.status.status_code is StatusCode.UNSET


def test_what_the_caller_does_not_keep_is_not_kept():
    assert spans_of((RECORD, TraceContext(TRACE, PARENT, False))) == ()


def test_a_request_without_a_context_begins_a_trace():
    (span,) = spans_of((RECORD, None))
    assert span.parent is None
    assert span.context.trace_id != 0


def test_a_failure_of_the_server_is_an_error_and_an_unknown_model_names_no_span():
    failed = RequestRecord("detector", "3", "http", "", "500", 0.1)
    unknown = RequestRecord("made up", "", "http", "", "404", 0.1)
    first, second = spans_of((failed, None), (unknown, None))
    assert first.status.status_code is StatusCode.ERROR
    assert (second.name, second.attributes["inference.model"]) == ("infer", "")
    assert second.status.status_code is StatusCode.UNSET


class Collector(http.server.ThreadingHTTPServer):
    """An OTLP collector on loopback."""

    def __init__(self):
        self.requests = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                return

        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def end(self):
        self.shutdown()
        self.server_close()
        self.thread.join(5)


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.end()


def test_spans_reach_a_collector(collector, monkeypatch):
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    tracer = open_tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    tracer.record(RECORD, TraceContext(TRACE, PARENT, True))
    tracer.close()
    ((path, request),) = collector.requests
    (resource,) = request.resource_spans
    (span,) = resource.scope_spans[0].spans
    assert path == "/v1/traces"
    assert (span.name, span.trace_id.hex()) == ("infer detector", TRACE)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_where_nobody_collects_there_is_no_tracer(environment):
    assert open_tracer(environment) is None


def test_without_the_extra_the_log_says_what_to_install(monkeypatch, caplog):
    for module in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with caplog.at_level(logging.WARNING):
        assert open_tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    assert "edgemodel[server,tracing]" in caplog.text
