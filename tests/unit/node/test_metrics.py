"""Metric names are a promise: the golden list holds them."""

import asyncio
from pathlib import Path

import pytest

from edgemodel.node.metrics import Metrics
from edgemodel.process.probes import ProbeServer
from tests.unit.node.site import ask

GOLDEN = Path(__file__).parents[2] / "golden/node_metrics.txt"
REFERENCE = Path(__file__).parents[3] / "docs/reference/metrics.md"


def filled() -> Metrics:
    metrics = Metrics(models=lambda state: float(state == "Ready"))
    metrics.transferred.labels("Delta").inc(5)
    metrics.saved.inc(95)
    metrics.seconds.labels("Delta").observe(0.3)
    metrics.failures.labels("DiskFull").inc()
    metrics.checks.labels("ok").inc()
    return metrics


def test_names_labels_and_types_are_those_of_the_golden_list():
    lines = set()
    for family in filled().registry.collect():
        if family.name.startswith("process"):
            continue
        labels = sorted({name for sample in family.samples for name in sample.labels if name != "le"})
        lines |= {f"{sample.name}{{{','.join(labels)}}} {family.type}" for sample in family.samples}
    assert "".join(f"{line}\n" for line in sorted(lines)) == GOLDEN.read_text()


def test_the_reference_explains_every_metric():
    text = REFERENCE.read_text(encoding="utf-8")
    for line in GOLDEN.read_text().splitlines():
        name = line.split("{")[0]
        assert any(name.removesuffix(end) in text for end in ("", "_bucket", "_count", "_sum")), name


@pytest.fixture
async def probes():
    wrong = {"healthy": None, "ready": "not yet"}
    server = ProbeServer(filled().registry, healthy=lambda: wrong["healthy"], ready=lambda: wrong["ready"])
    await server.start("127.0.0.1", 0)
    yield server
    await server.stop()


async def test_metrics_and_checks_are_served(probes):
    status, body = await ask(probes.port, "/metrics?x=1")
    assert status == 200
    assert 'edgemodel_node_transfer_bytes_total{kind="Delta"} 5.0' in body
    assert 'edgemodel_node_models{state="Ready"} 1.0' in body
    assert await ask(probes.port, "/healthz") == (200, "ok\n")
    assert await ask(probes.port, "/readyz") == (503, "not yet\n")
    assert (await ask(probes.port, "/else"))[0] == 404


@pytest.mark.parametrize(
    "sent",
    [b"POST /metrics HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"GET /metrics\r\n\r\n", b"x" * 20000, b"\x16\x03\x01"],
)
async def test_nothing_a_client_sends_stops_the_server(probes, sent):
    reader, writer = await asyncio.open_connection("127.0.0.1", probes.port)
    writer.write(sent)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    assert answer == b"" or b" 405 " in answer
    assert (await ask(probes.port, "/healthz"))[0] == 200
