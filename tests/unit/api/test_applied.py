"""What is sent by server-side apply mentions nothing that is empty."""

from edgemodel.api.applied import without_empty


def test_empty_lists_and_mappings_go_at_any_depth_of_mappings() -> None:
    document = {
        "models": [],
        "slots": {"candidate": {}},
        "active": {"verifiedBy": [], "digest": "d"},
        "replicas": 0,
        "selector": "",
        "paused": False,
    }
    assert without_empty(document) == {
        "active": {"digest": "d"},
        "replicas": 0,
        "selector": "",
        "paused": False,
    }


def test_entries_of_lists_stay_as_they_are() -> None:
    assert without_empty({"steps": [{"checks": []}, {}]}) == {"steps": [{"checks": []}, {}]}
