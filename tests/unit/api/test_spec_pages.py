"""The pages under docs/spec explain every word and every field that a user meets."""

from pathlib import Path

import pytest

from edgemodel.api import crd
from edgemodel.api.conditions import ConditionType, Reason

PAGES = Path(__file__).resolve().parents[3] / "docs/spec"


@pytest.mark.parametrize("word", [str(one) for one in (*ConditionType, *Reason)])
def test_every_condition_type_and_reason_is_explained(word: str) -> None:
    assert f"`{word}`" in (PAGES / "edgemodel.md").read_text()


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.name)
def test_every_spec_field_has_a_heading(kind: crd.Kind) -> None:
    text = (PAGES / f"{kind.singular}.md").read_text()
    for name in crd.schema(kind)["properties"]["spec"]["properties"]:
        assert f"\n### {name}\n" in text, name
