"""Metric names are a promise: the golden list holds them."""

from pathlib import Path

from edgemodel.gateway.metrics import Metrics
from edgemodel.gateway.shadow_metrics import Trial

GOLDEN = Path(__file__).parents[2] / "golden/gateway_metrics.txt"
REFERENCE = Path(__file__).parents[3] / "docs/reference/metrics.md"


def test_names_labels_and_types_are_those_of_the_golden_list() -> None:
    metrics = Metrics(starts=lambda: 1)
    metrics.duration.labels("reload").observe(0.1)
    trial = Trial("vision", "detector", "sha256:1")
    metrics.shadow.follow([trial])
    metrics.shadow.count(trial, "agree", 0.1)
    lines = set()
    for family in metrics.registry.collect():
        if family.name.startswith("process"):
            continue
        labels = sorted({name for sample in family.samples for name in sample.labels if name != "le"})
        lines |= {
            f"{sample.name}{{{','.join(labels)}}} {family.type}"
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
    assert "".join(f"{line}\n" for line in sorted(lines)) == GOLDEN.read_text()


def test_the_reference_explains_every_metric() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for line in GOLDEN.read_text().splitlines():
        name = line.split("{")[0]
        assert any(name.removesuffix(end) in text for end in ("_bucket", "_count", "_sum")), name
