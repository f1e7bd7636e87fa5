"""From pydantic to a structural schema: nothing is dropped, nothing is left that the API server refuses."""

from datetime import datetime
from typing import Any, Literal

import pytest
from pydantic import Field

from edgemodel.api.meta import Resource
from edgemodel.api.schema import Extras, Rule, prose, structural


class Leaf(Resource):
    """A leaf."""

    size: int = Field(default=3, ge=1, le=9)
    """How big."""


class Tree(Resource):
    """A tree
    on two lines.

    And a second paragraph.
    """

    name: str = Field(max_length=5)
    """Its name."""
    kind: Literal["Oak"] = "Oak"
    """Its kind."""
    leaf: Leaf = Field(default_factory=Leaf)
    """Its leaf."""
    spare: Leaf | None = None
    """Another leaf."""
    leaves: list[Leaf] = Field(default_factory=list, max_length=4)
    """More leaves."""
    planted: datetime | None = None
    """When."""
    rings: int | None = None
    """How many."""
    notes: dict[str, Any] = Field(default_factory=dict)
    """Anything."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels."""
    marks: list[str] = Field(default_factory=lambda: ["a"])
    """Marks."""


def schema_of_tree(**extras: Any) -> dict[str, Any]:
    return structural(Tree, {"Tree": Extras(**extras)}, defaults=True)


def test_only_fields_without_a_default_are_required() -> None:
    assert schema_of_tree()["required"] == ["name"]


def test_an_optional_field_is_its_type_and_not_nullable() -> None:
    properties = schema_of_tree()["properties"]
    assert properties["rings"] == {"type": "integer", "description": "How many.", "format": "int64"}
    assert properties["planted"] == {"type": "string", "description": "When.", "format": "date-time"}


def test_references_are_inlined_and_the_field_s_own_words_win() -> None:
    spare = schema_of_tree()["properties"]["spare"]
    assert spare["description"] == "Another leaf."
    assert spare["properties"]["size"] == {
        "type": "integer",
        "description": "How big.",
        "format": "int32",
        "minimum": 1,
        "maximum": 9,
        "default": 3,
    }


def test_an_object_defaults_to_empty_only_when_a_default_waits_below() -> None:
    properties = schema_of_tree()["properties"]
    assert properties["leaf"]["default"] == {}
    assert "default" not in properties["spare"]
    assert "default" not in properties["notes"]
    assert "default" not in properties["leaves"]


def test_a_list_default_that_a_function_makes_is_written_out() -> None:
    assert schema_of_tree()["properties"]["marks"]["default"] == ["a"]


def test_status_carries_no_defaults() -> None:
    assert "default" not in str(structural(Tree, {}, defaults=False))


def test_a_single_literal_is_an_enum() -> None:
    assert schema_of_tree()["properties"]["kind"]["enum"] == ["Oak"]


def test_free_form_keeps_unknown_fields_and_typed_maps_do_not() -> None:
    properties = schema_of_tree()["properties"]
    assert properties["notes"]["x-kubernetes-preserve-unknown-fields"] is True
    assert properties["labels"]["additionalProperties"] == {"type": "string"}


def test_lists_say_how_they_merge() -> None:
    properties = schema_of_tree(list_keys={"leaves": "size"}, sets=frozenset({"marks"}))["properties"]
    assert properties["leaves"]["x-kubernetes-list-map-keys"] == ["size"]
    assert properties["marks"]["x-kubernetes-list-type"] == "set"
    assert schema_of_tree()["properties"]["marks"]["x-kubernetes-list-type"] == "atomic"


def test_rules_stand_on_the_object_or_on_the_field() -> None:
    rule = Rule("self == self", "always", field_path=".name")
    schema = schema_of_tree(rules=(rule,), field_rules={"name": (Rule("self != ''", "not empty"),)})
    assert schema["x-kubernetes-validations"] == [
        {"rule": "self == self", "message": "always", "fieldPath": ".name"}
    ]
    assert schema["properties"]["name"]["x-kubernetes-validations"] == [
        {"rule": "self != ''", "message": "not empty"}
    ]


def test_prose_is_one_line_a_paragraph() -> None:
    assert prose(Tree.__doc__ or "") == "A tree on two lines.\n\nAnd a second paragraph."


class Undocumented(Resource):
    """Has a field without words."""

    silent: int = 1


class Union(Resource):
    """Has a field of two types."""

    both: int | str = 1
    """A number or a word."""


class Exclusive(Resource):
    """Has a limit that the dialect writes otherwise."""

    size: int = Field(gt=0)
    """How big."""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Undocumented, "Undocumented.silent has no docstring"),
        (Union, "Union.both: a union of 2 types|Union.both is a union of 2 types"),
        (Exclusive, "Exclusive.size: a structural schema cannot express exclusiveMinimum"),
    ],
)
def test_what_the_dialect_cannot_say_is_an_error_that_names_the_field(
    model: type[Resource], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        structural(model, {}, defaults=True)
