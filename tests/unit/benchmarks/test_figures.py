"""What a result file says after a run of some parts only."""

import json
from pathlib import Path

import pytest

from benchmarks import figures
from benchmarks.figures import Report

PARTS = ("death", "death_of_agent", "drain")


def test_parts_that_do_not_run_keep_their_figures_notes_and_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    before = [
        {"name": name, "value": 1.0, "unit": "s", "op": "<=", "goal": 2}
        for name in ("death_gap", "death_of_agent_gap", "drain_gap", "of_nobody")
    ]
    notes = {"death": "a", "death_of_agent_found": "b", "load": "c", "recorded": {"drain": "2026-11-01"}}
    (tmp_path / "trial.json").write_text(
        json.dumps({"date": "2026-11-02", "figures": before, "notes": notes})
    )
    report = Report("trial")
    report.keep(PARTS, ["death"])
    report.add("death_gap", 3, "s", "<=", 2)
    report.ran("death")
    found = json.loads((tmp_path / "trial.json").read_text())
    assert [(one["name"], one["value"]) for one in found["figures"]] == [
        ("death_of_agent_gap", 1),
        ("drain_gap", 1),
        ("death_gap", 3),
    ]
    days = found["notes"].pop("recorded")
    assert days == {"drain": "2026-11-01", "death_of_agent": "2026-11-02", "death": found["date"]}
    assert found["notes"] == {"death_of_agent_found": "b"}


def test_a_first_run_has_nothing_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    report = Report("trial")
    report.keep(PARTS, PARTS)
    assert report.figures == []
    assert report.notes == {"recorded": {}}
