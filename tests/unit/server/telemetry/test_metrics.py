"""The names of the metrics are a contract."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from inference_server.serving.dataplane import DataPlane
from inference_server.serving.result_cache import ResultCache
from inference_server.telemetry.metrics import Metrics
from tests.unit.server.conftest import Doubler

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "tests/golden/server_metrics.txt"


def described(metrics):
    """One line a metric: name, kind and labels."""
    lines = []
    for family in text_string_to_metric_families(metrics.render().decode()):
        # Creation times: `python -m inference_server` switches them off, for the whole process.
        if family.name.endswith("_created"):
            continue
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        lines.append(f"{name} {family.type} {','.join(labels)}".rstrip())
    return sorted(lines)


def exercised():
    metrics = Metrics()
    plane = DataPlane(metrics, cache=ResultCache(1 << 20, 0, metrics))
    metrics.thermal.labels("thermal_zone0 cpu-thermal").set(40)
    plane.add(Doubler())
    plane.count_refusal("http", "413", "m")
    return plane.metrics


def test_names_kinds_and_labels_are_those_of_the_golden_list():
    assert described(exercised()) == GOLDEN.read_text().splitlines()


def test_every_metric_is_in_the_reference():
    reference = (ROOT / "docs/reference/metrics.md").read_text()
    for line in described(exercised()):
        assert f"`{line.split()[0]}`" in reference
