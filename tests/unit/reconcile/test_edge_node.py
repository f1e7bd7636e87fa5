"""What one node is to hold, from all models of the cluster."""

from typing import Any

from edgemodel.api.edge_node import EdgeNodeSpec
from edgemodel.api.v1alpha1 import EdgeModel, EdgeModelStatus, NodeCounts, Slots
from edgemodel.reconcile.edge_node import MOST, Placement, edge_node_spec
from edgemodel.reconcile.observed import Settings
from tests.unit.reconcile.test_children import slot
from tests.unit.reconcile.world import DIGESTS, SETTINGS, edge_model

NODE: dict[str, Any] = {"metadata": {"name": "cam-1", "labels": {"zone": "yard"}}, "spec": {}}
WINDOW = {"schedule": "0 2 * * *", "duration": "3h", "timeZone": "Europe/Vienna"}
UPDATING = Slots(active=slot("A"), candidate=slot("B", model_file="b.onnx"), last_good=slot("C"))


def placed(
    slots: Slots = UPDATING, *, name: str = "detector", by_nodes: bool = True, **more: Any
) -> Placement:
    model = edge_model(**more.pop("spec", {}))
    metadata = model.metadata.model_copy(update={"name": name, **more.pop("metadata", {})})
    status = EdgeModelStatus(slots=slots, nodes=NodeCounts() if by_nodes else None)
    return Placement(EdgeModel(metadata=metadata, spec=model.spec, status=status), **more)


def spec(*models: Placement, settings: Settings = SETTINGS) -> dict[str, Any]:
    return edge_node_spec(NODE, models, settings)


def test_a_node_holds_the_active_the_next_and_the_last_version() -> None:
    made = spec(placed(policies={"site": "{}"}, sealed="c2VhbGVk"))
    assert [(one["digest"], one["role"]) for one in made["models"]] == [
        (str(DIGESTS["A"]), "Active"),
        (str(DIGESTS["B"]), "Candidate"),
        (str(DIGESTS["C"]), "LastGood"),
    ]
    assert made["models"][1] == {
        "namespace": "vision",
        "name": "detector",
        "digest": str(DIGESTS["B"]),
        "image": f"registry.site.local/models/detector@{DIGESTS['B']}",
        "role": "Candidate",
        "modelFile": "b.onnx",
        "policies": ["site"],
        "sealedPullSecrets": "c2VhbGVk",
        "recheckInterval": "24h",
    }
    assert made["policies"] == [{"name": "site", "document": "{}"}]


def test_what_is_made_is_what_the_api_reads() -> None:
    made = spec(placed(policies={"site": "{}"}), settings=Settings("s", "n", store_budget=5, rate_limit=7))
    assert EdgeNodeSpec.model_validate(made).model_dump(by_alias=True, exclude_none=True) == made
    assert (made["storeBudget"], made["rateLimit"]) == (5, 7)


def test_the_order_does_not_depend_on_who_comes_first() -> None:
    one = placed(name="one", policies={"b": "{1}", "a": "{2}"})
    two = placed(name="two", policies={"c": "{3}"})
    assert spec(one, two) == spec(two, one)
    assert [one["name"] for one in spec(two, one)["policies"]] == ["a", "b", "c"]


def test_a_version_in_two_slots_is_held_once_in_its_first_role() -> None:
    made = spec(placed(Slots(active=slot("A"), last_good=slot("A"))))
    assert [one["role"] for one in made["models"]] == ["Active"]


def test_what_pods_fetch_for_themselves_is_no_node_s_business() -> None:
    made = spec(placed(by_nodes=False, policies={"site": "{}"}))
    assert (made["models"], made["policies"]) == ([], [])


def test_a_model_that_is_going_is_held_no_longer() -> None:
    assert spec(placed(metadata={"deletion_timestamp": "2026-01-01T00:00:00Z"}))["models"] == []


def test_only_nodes_that_may_run_the_pods_hold_the_model_unless_pods_are_there_still() -> None:
    elsewhere = {"podTemplate": {"nodeSelector": {"zone": "hall"}}}
    assert spec(placed(spec=elsewhere))["models"] == []
    assert len(spec(placed(spec=elsewhere, pods_here=True))["models"]) == 3


def test_only_a_candidate_waits_for_the_window() -> None:
    made = spec(placed(spec={"rollout": {"window": {"download": WINDOW}}}))
    assert [one.get("window") for one in made["models"]] == [None, WINDOW, None]


def test_the_interval_of_re_hashing_is_handed_on() -> None:
    made = spec(placed(spec={"integrity": {"recheckInterval": "1h"}}))
    assert {one["recheckInterval"] for one in made["models"]} == {"1h"}


def test_what_does_not_fit_is_what_served_before() -> None:
    many = [placed(name=f"m{number}") for number in range(200)]
    made = edge_node_spec(NODE, many, SETTINGS)["models"]
    roles = [one["role"] for one in made]
    assert len(roles) == MOST
    assert (roles.count("Active"), roles.count("Candidate"), roles.count("LastGood")) == (200, 200, 112)
