"""Whole passes from one version to the next, one sentence a case."""

import pytest

from tests.unit.reconcile.world import (
    DOWNLOADING,
    UNREACHABLE,
    World,
    fetch_ended,
    judged,
    server_ended,
    serving,
)


def test_a_new_version_replaces_the_old_one_without_a_gap() -> None:
    world = serving(replicas=2)
    world.target = judged("B")
    world.settle()
    assert (world.sizes(), world.selected()) == ({"A": 2, "B": 2}, "A")
    assert world.condition("Progressing") == ("True", "Replacing")
    assert world.told() == ["ArtifactResolved", "ArtifactVerified", "RolloutStarted"]
    world.ready("B", 1).settle()
    assert world.selected() == "A"

    switched = world.ready("B").turn()
    assert (world.sizes(), world.selected()) == ({"A": 2, "B": 2}, "B")
    assert (world.condition("Progressing"), switched.requeue_after) == (("True", "Promoting"), 1.0)
    assert world.turn().delete == ()
    removed = world.later(3).turn()
    assert [(gone.kind, gone.name, bool(gone.uid)) for gone in removed.delete] == [
        ("Deployment", "detector-559aead0", True)
    ]
    world.settle()
    assert (world.sizes(), world.slots()) == ({"B": 2}, {"active": "B", "last_good": "A"})
    assert world.model.status.highest_sequence == 2
    assert world.told() == ["ArtifactPulled", "ModelLoaded", "Promoted"]


@pytest.mark.parametrize(
    ("reason", "delivered"),
    [
        ("ModelLoadFailed", ("True", "Pulled")),
        ("UnsupportedOpset", ("True", "Pulled")),
        ("MissingExternalData", ("True", "Pulled")),
        ("AmbiguousModelFile", ("False", "AmbiguousModelFile")),
        ("ModelFileNotFound", ("False", "ModelFileNotFound")),
    ],
)
def test_a_new_version_that_cannot_load_leaves_the_old_one_serving(
    reason: str, delivered: tuple[str, str]
) -> None:
    world = serving()
    world.target = judged("B")
    world.settle().told()
    world.fail("B", reason, "tensor w is missing").settle()
    assert (world.sizes(), world.selected(), world.slots()) == ({"A": 1}, "A", {"active": "A"})
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("ModelLoaded") == ("False", reason)
    assert world.condition("Progressing") == ("False", "BlockedByFailedLoad")
    assert world.condition("RolledBack") == ("True", "LoadFailed")
    assert world.condition("ArtifactDelivered") == delivered
    for said in (
        "Version 1.2.0",
        "tensor w is missing",
        "Version 1.1.0",
        "goes on serving",
        "edgemodel.io/retry",
    ):
        assert said in world.message("Progressing")
    assert [told for told in world.told() if told != "ArtifactPulled"] == ["ModelLoadFailed", "RolledBack"]
    world.later(10**6).settle()
    assert world.told() == []


def test_a_new_version_that_crashes_over_and_over_is_taken_back() -> None:
    world = serving()
    world.target = judged("B")
    world.settle()
    world.report("B", server_ended("boom", waiting="")).settle()
    assert world.slots() == {"active": "A", "candidate": "B"}
    world.report("B", server_ended("boom")).settle()
    assert world.condition("ModelLoaded") == ("False", "ServerCrashed")
    assert world.condition("Ready") == ("True", "Serving")


def test_a_new_version_of_which_a_pod_got_altered_bytes_is_taken_back() -> None:
    world = serving()
    world.target = judged("B")
    world.settle()
    world.report("B", fetch_ended('{"reason": "DigestMismatch", "message": "layer 2"}')).settle()
    assert world.condition("ArtifactDelivered") == ("False", "DigestMismatch")
    assert world.condition("RolledBack") == ("True", "DigestMismatch")
    assert world.condition("Ready") == ("True", "Serving")


def test_a_new_version_that_its_own_pod_refuses_for_now_is_given_time() -> None:
    world = serving()
    world.target = judged("B")
    world.settle()
    world.report("B", fetch_ended('{"reason": "KeyRevoked", "message": "key k"}')).settle()
    assert world.slots() == {"active": "A", "candidate": "B"}
    assert world.condition("ArtifactDelivered") == ("False", "KeyRevoked")
    world.ready("B").settle()
    assert world.slots() == {"active": "B", "last_good": "A"}


def test_a_new_version_that_gets_nowhere_is_taken_back_at_its_deadline() -> None:
    world = serving(rollout={"progressDeadline": "90s"})
    world.target = judged("B")
    world.settle()
    assert world.last.requeue_after == 90
    world.later(30).report("B", DOWNLOADING).settle()
    assert world.last.requeue_after == 60
    world.later(60).settle()
    assert world.condition("Progressing") == ("False", "ProgressDeadlineExceeded")
    assert world.condition("RolledBack") == ("True", "ProgressDeadlineExceeded")
    assert world.sizes() == {"A": 1}


@pytest.mark.parametrize("ask", ["annotation", "spec"])
def test_a_version_that_was_taken_back_is_tried_again_when_asked(ask: str) -> None:
    world = serving()
    world.target = judged("B")
    world.settle().fail("B", "ModelLoadFailed").settle()
    assert world.sizes() == {"A": 1}
    world.annotate(retry="1") if ask == "annotation" else world.edit(replicas=2)
    world.settle()
    assert world.slots() == {"active": "A", "candidate": "B"}
    assert world.condition("RolledBack") == ("False", "None")
    world.ready("B").ready("A").settle()
    assert world.slots() == {"active": "B", "last_good": "A"}


def test_what_was_taken_back_stays_told_while_the_registry_is_away() -> None:
    world = serving()
    world.target = judged("B")
    world.settle().fail("B", "ModelLoadFailed").settle()
    world.target = UNREACHABLE
    world.settle()
    assert world.condition("ModelLoaded") == ("False", "ModelLoadFailed")
    assert world.condition("ArtifactVerified") == ("Unknown", "RegistryUnreachable")
    assert world.condition("Ready") == ("True", "Serving")


def test_a_spec_that_goes_back_to_the_active_version_drops_the_candidate() -> None:
    world = serving()
    world.target = judged("B")
    world.settle()
    world.target = judged("A")
    world.settle()
    assert (world.sizes(), world.slots()) == ({"A": 1}, {"active": "A"})
    assert world.condition("Progressing") == ("False", "Complete")


def test_a_pause_holds_a_new_version_and_says_so() -> None:
    world = serving()
    world.edit(rollout={"paused": True})
    world.target = judged("B")
    world.settle()
    assert world.sizes() == {"A": 1}
    assert world.condition("Progressing") == ("False", "Paused")
    assert world.condition("ArtifactVerified") == ("True", "Verified")
    assert world.told() == ["ArtifactResolved", "ArtifactVerified", "UpdatePaused"]
    world.edit(rollout={"paused": False})
    world.settle()
    assert world.sizes() == {"A": 1, "B": 1}


def test_a_paused_first_version_is_not_started() -> None:
    world = World("A", rollout={"paused": True}).settle()
    assert not world.children
    assert world.condition("Ready") == ("False", "Paused")


def test_stop_first_has_one_version_up_at_a_time() -> None:
    world = serving(replicas=2, rollout={"strategy": "StopFirst"})
    world.target = judged("B")
    world.turn()
    assert world.sizes() == {"A": 0, "B": 0}
    world.turn()
    assert world.sizes() == {"A": 0, "B": 2}
    world.settle()
    assert world.condition("Ready") == ("False", "NoReadyPods")
    assert "StopFirst" in world.message("Ready")
    world.ready("B", 1).settle()
    assert (world.selected(), world.condition("Ready")) == ("B", ("True", "Serving"))
    world.ready("B").settle()
    assert (world.sizes(), world.slots()) == ({"B": 2}, {"active": "B", "last_good": "A"})


def test_stop_first_brings_the_old_version_back() -> None:
    world = serving(rollout={"strategy": "StopFirst"})
    world.target = judged("B")
    world.settle().fail("B", "ModelLoadFailed").settle()
    assert (world.sizes(), world.selected()) == ({"A": 1}, "A")
    assert world.condition("Ready") == ("False", "NoReadyPods")
    world.ready("A").settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Progressing") == ("False", "BlockedByFailedLoad")
