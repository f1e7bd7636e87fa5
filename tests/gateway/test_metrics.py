"""What the reference and the dashboard say of HAProxy's own metrics is what a real one exports."""

import re
from pathlib import Path

import httpx
import pytest

from tests.gateway.clients import answering, versions
from tests.gateway.site import Site

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]


async def test_every_series_that_the_reference_names_is_exported_for_a_model(site: Site) -> None:
    await site.pod()
    await versions(await answering(site.model()), 10)
    text = (ROOT / "docs/reference/metrics.md").read_text()
    named = set(re.findall(r"^\| `(haproxy_\w+)`", text, flags=re.MULTILINE))
    named |= set(
        re.findall(r"\bhaproxy_\w+", (ROOT / "charts/edgemodel/dashboards/edgemodel.json").read_text())
    )
    assert len(named) >= 7
    async with httpx.AsyncClient(trust_env=False) as client:
        told = (await client.get(f"http://127.0.0.1:{site.settings.haproxy_port}/metrics")).text
    found = re.findall(r'^(haproxy_\w+)\{proxy="vision\.detector\.active"', told, flags=re.MULTILINE)
    assert named <= set(found)
    (answered,) = re.findall(
        r'^haproxy_backend_http_responses_total\{proxy="vision\.detector\.active",code="2xx"\} (\d+)',
        told,
        flags=re.MULTILINE,
    )
    assert int(answered) >= 10
