"""What a process without a web server says of itself, and how it is asked."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Gauge

from edgemodel.process.probes import ProbeServer


async def ask(port: int, line: str) -> tuple[int, str]:
    """Send one request line; return status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line}\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("GET /healthz HTTP/1.1", 200, "ok"),
        ("GET /readyz HTTP/1.1", 503, "starting"),
        ("GET /metrics HTTP/1.1", 200, "of_a_test 7"),
        ("GET /current?x=1 HTTP/1.1", 503, "looking"),
        ("GET /else HTTP/1.1", 404, "/metrics"),
        ("POST /healthz HTTP/1.1", 405, "GET"),
        ("nonsense", 405, "GET"),
    ],
)
async def test_what_is_answered(line: str, status: int, words: str) -> None:
    async def looks() -> str | None:
        await asyncio.sleep(0)
        return "looking"

    registry = CollectorRegistry()
    Gauge("of_a_test", "Seven.", registry=registry).set(7)
    probes = ProbeServer(registry, healthy=lambda: None, ready=lambda: "starting", more={"/current": looks})
    await probes.start("127.0.0.1", 0)
    try:
        found, body = await ask(probes.port, line)
        assert (found, words in body) == (status, True)
    finally:
        await probes.stop()
