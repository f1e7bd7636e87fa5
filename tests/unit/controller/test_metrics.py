"""Metric names are a promise: the golden list holds them."""

import itertools
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import generate_latest

from edgemodel.api.meta import Condition
from edgemodel.api.rollout import GateState, RolloutStatus
from edgemodel.api.v1alpha1 import EdgeModelStatus, Slot, Slots
from edgemodel.controller.metrics import Metrics

GOLDEN = Path(__file__).parents[2] / "golden/operator_metrics.txt"
REFERENCE = Path(__file__).parents[3] / "docs/reference/metrics.md"
DIGEST = "sha256:" + "a" * 64


def rollout(step: int = 1, **results: str) -> RolloutStatus:
    gate = [GateState(name=name, result=result) for name, result in results.items()]  # type: ignore[arg-type]
    return RolloutStatus(step=step, weight=10, gate=gate)


def status(ready: str = "True", under_way: RolloutStatus | None = None) -> EdgeModelStatus:
    condition = Condition(
        type="Ready",
        status=ready,  # type: ignore[arg-type]
        last_transition_time=datetime(2026, 1, 1, tzinfo=UTC),
        reason="Serving",
        message="",
    )
    return EdgeModelStatus(
        slots=Slots(active=Slot(digest=DIGEST, image=f"r.example/m@{DIGEST}", version="1.4.0")),
        conditions=[condition],
        rollout=under_way,
    )


def filled() -> Metrics:
    metrics = Metrics(depth=lambda: 3)
    metrics.show("vision", "detector", status(under_way=rollout()))
    metrics.judged(status(), status(under_way=rollout(errors="Inconclusive")))
    metrics.reconciles.labels("ok").inc()
    metrics.verifications.labels("Verified").inc()
    metrics.rollbacks.labels("LoadFailed").inc()
    metrics.nodes.labels("online").set(2)
    metrics.evictions.labels("evicted").inc()
    metrics.seconds.observe(0.1)
    return metrics


def listed(metrics: Metrics) -> str:
    lines = set()
    for family in metrics.registry.collect():
        labels = sorted({name for sample in family.samples for name in sample.labels if name != "le"})
        names = {sample.name for sample in family.samples}
        lines |= {f"{name}{{{','.join(labels)}}} {family.type}" for name in names}
    return "".join(f"{line}\n" for line in sorted(lines))


def test_names_labels_and_types_are_those_of_the_golden_list() -> None:
    assert listed(filled()) == GOLDEN.read_text()


def test_the_reference_explains_every_metric() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    families = {line.split("{")[0] for line in GOLDEN.read_text().splitlines()}
    missing = [
        name
        for name in families
        if not any(name.removesuffix(end) in text for end in ("", "_bucket", "_count", "_sum"))
    ]
    assert missing == []


def test_a_condition_has_one_status_that_is_1() -> None:
    metrics = filled()

    def value(of: str) -> float | None:
        labels = {"namespace": "vision", "name": "detector", "type": "Ready", "status": of}
        return metrics.registry.get_sample_value("edgemodel_condition", labels)

    assert [value(of) for of in ("True", "False", "Unknown")] == [1, 0, 0]
    metrics.show("vision", "detector", status("False"))
    assert [value(of) for of in ("True", "False", "Unknown")] == [0, 1, 0]


def test_a_model_that_is_gone_leaves_no_series() -> None:
    metrics = filled()
    assert b'name="detector"' in generate_latest(metrics.registry)
    metrics.forget("vision", "detector")
    assert b'name="detector"' not in generate_latest(metrics.registry)


def test_the_weight_is_there_while_there_is_a_rollout() -> None:
    metrics = filled()
    labels = {"namespace": "vision", "name": "detector"}
    assert metrics.registry.get_sample_value("edgemodel_rollout_weight_ratio", labels) == 0.1
    metrics.show("vision", "detector", status())
    assert metrics.registry.get_sample_value("edgemodel_rollout_weight_ratio", labels) is None


def test_a_gates_result_counts_when_it_is_new() -> None:
    metrics = Metrics(depth=lambda: 0)
    turns = [
        None,
        rollout(errors="Inconclusive"),
        rollout(errors="Inconclusive"),
        rollout(errors="Pass", latency="Pass"),
        rollout(step=2),
        rollout(step=2, errors="Pass"),
        None,
    ]
    for before, after in itertools.pairwise(turns):
        metrics.judged(status(under_way=before), status(under_way=after))

    def count(gate: str, result: str) -> float | None:
        labels = {"gate": gate, "result": result}
        return metrics.registry.get_sample_value("edgemodel_gate_results_total", labels)

    assert count("errors", "Inconclusive") == 1
    assert count("errors", "Pass") == 2
    assert count("latency", "Pass") == 1
    assert count("errors", "Fail") is None
