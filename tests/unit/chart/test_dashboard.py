"""The dashboard asks only for metrics that exist, explains each panel, and is what its source makes."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgemodel.controller.metrics import Metrics as OperatorMetrics
from edgemodel.gateway.metrics import Metrics as GatewayMetrics
from edgemodel.node.metrics import Metrics as NodeMetrics
from inference_server.telemetry.metrics import Metrics as ServerMetrics

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "charts/edgemodel/dashboards/build.py"
REFERENCE = ROOT / "docs/reference/metrics.md"


@pytest.fixture(scope="module")
def dashboards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("edgemodel_dashboards", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def exposed() -> set[str]:
    """Return every series name that ours expose, and those of HAProxy's that ``tests/gateway`` finds at a real one."""
    found = set(re.findall(r"`(haproxy_[a-z_]+)", REFERENCE.read_text()))
    for ours in (
        OperatorMetrics(depth=lambda: 0),
        ServerMetrics(),
        GatewayMetrics(starts=lambda: 0),
        NodeMetrics(models=lambda _: 0),
    ):
        for metric in ours.registry.collect():
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
            found |= {metric.name + suffix for suffix in suffixes.get(metric.type, ("",))}
    return found


def test_the_committed_file_is_what_the_source_makes(dashboards: ModuleType) -> None:
    for name, text in dashboards.files().items():
        assert (SOURCE.parent / f"{name}.json").read_text() == text


def test_every_metric_asked_for_exists(dashboards: ModuleType) -> None:
    known = exposed()
    for title, query in dashboards.queries():
        names = set(re.findall(r"\b(?:edgemodel|inference|process|haproxy)_[a-z_]+\b", query))
        assert names, title
        assert names <= known, title


def test_every_panel_is_explained(dashboards: ModuleType) -> None:
    for panels in dashboards.ROWS.values():
        for panel in panels:
            assert panel.description.endswith("."), panel.title


def test_only_variables_that_the_dashboard_defines_are_used(dashboards: ModuleType) -> None:
    used = {name for _, query in dashboards.queries() for name in re.findall(r"\$\{?(\w+)", query)}
    assert used <= {"namespace", "model", "__rate_interval"}
