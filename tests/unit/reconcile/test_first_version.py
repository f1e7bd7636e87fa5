"""Whole passes until a first version serves, one sentence a case."""

from edgemodel.api.conditions import Reason
from edgemodel.reconcile.observed import Unresolved
from tests.unit.reconcile.world import (
    DOWNLOADING,
    LOADING,
    LOOKING,
    UNREACHABLE,
    UNSCHEDULABLE,
    UNSIGNED,
    World,
    judged,
    kinds,
    serving,
)


def test_the_first_pass_makes_all_children_and_says_what_it_does() -> None:
    world = World("A")
    decision = world.turn()
    assert kinds(decision) == ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service"]
    assert (world.slots(), world.selected()) == ({"candidate": "A"}, "A")
    assert world.told() == ["ArtifactResolved", "ArtifactVerified", "RolloutStarted"]
    assert world.condition("Ready") == ("Unknown", "Reconciling")
    assert [item.type for item in world.model.status.conditions] == [
        "Ready",
        "ArtifactVerified",
        "ArtifactDelivered",
        "ModelLoaded",
        "Progressing",
        "RolledBack",
        "Degraded",
        "Stalled",
    ]


def test_the_first_version_gets_ready_step_by_step() -> None:
    world = World("A", replicas=2).settle()
    story = []
    for happen in (
        lambda: world.report("A", DOWNLOADING),
        lambda: world.report("A", LOADING),
        lambda: world.ready("A", 1),
        lambda: world.ready("A"),
    ):
        happen()
        world.settle()
        types = ("Ready", "ArtifactDelivered", "ModelLoaded", "Progressing", "Degraded")
        story.append([world.condition(kind) for kind in types])
    promoting, complete, fine = ("True", "Promoting"), ("False", "Complete"), ("False", "None")
    pulled, loaded = ("True", "Pulled"), ("True", "Loaded")
    assert story == [
        [("False", "Downloading"), ("False", "Downloading"), ("Unknown", "Starting"), promoting, fine],
        [("False", "Starting"), pulled, ("Unknown", "Starting"), promoting, fine],
        [("True", "Serving"), pulled, loaded, complete, ("True", "ReplicasMissing")],
        [("True", "Serving"), pulled, loaded, complete, fine],
    ]
    assert world.told()[-3:] == ["ArtifactPulled", "ModelLoaded", "Promoted"]


def test_a_serving_model_tells_all_that_status_promises() -> None:
    status = serving(replicas=2).model.status
    assert (status.replicas, status.ready_replicas, status.highest_sequence) == (2, 2, 1)
    assert status.url == "http://detector.vision.svc"
    assert status.selector == "edgemodel.io/model=detector,edgemodel.io/digest=559aead08264d579"
    assert status.tag is not None
    assert status.tag.ref == "registry.site.local/models/detector:stable"
    assert status.slots.active is not None
    assert status.slots.active.verified_by == ["site/release"]
    assert status.last_verified_time is not None
    assert status.observed_generation == 1


def test_a_first_version_that_cannot_load_stays_and_says_why() -> None:
    world = World("A").settle()
    world.fail("A", "UnsupportedOpset", "model.onnx needs opset 99").settle().later(3600).settle()
    assert world.slots() == {"candidate": "A"}
    assert world.condition("Ready") == ("False", "UnsupportedOpset")
    assert world.condition("ModelLoaded") == ("False", "UnsupportedOpset")
    assert world.condition("Progressing") == ("False", "BlockedByFailedLoad")
    assert "opset 99" in world.message("Ready")
    assert "no earlier version to go back to" in world.message("ModelLoaded")
    world.ready("A").settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_first_version_that_takes_too_long_says_so_once() -> None:
    world = World("A").settle().report("A", DOWNLOADING).settle()
    assert world.last.requeue_after == 600
    world.later(600).settle()
    assert world.condition("Progressing") == ("False", "ProgressDeadlineExceeded")
    assert world.last.requeue_after is None


def test_a_first_version_that_no_node_takes_says_so() -> None:
    world = World("A").settle().report("A", UNSCHEDULABLE).settle()
    assert world.condition("Ready") == ("False", "Unschedulable")
    assert "Insufficient memory" in world.message("Ready")


def test_an_unsigned_first_version_starts_nothing() -> None:
    world = World(judged("A", refusal=UNSIGNED)).settle()
    assert not world.children
    assert world.condition("Ready") == ("False", "SignatureMissing")
    assert world.condition("ArtifactVerified") == ("False", "SignatureMissing")
    assert world.condition("Stalled") == ("True", "PolicyRefused")
    assert world.told() == ["ArtifactResolved", "SignatureRejected"]


def test_a_registry_that_never_answered_starts_nothing() -> None:
    world = World(UNREACHABLE).settle()
    assert not world.children
    assert world.condition("ArtifactVerified") == ("Unknown", "RegistryUnreachable")
    assert world.condition("Ready") == ("False", "RegistryUnreachable")
    assert world.condition("Stalled") == ("False", "None")


def test_while_the_first_look_is_under_way_nothing_is_known() -> None:
    world = World(LOOKING).settle()
    assert world.condition("Ready") == ("Unknown", "Reconciling")
    assert world.condition("ArtifactVerified") == ("Unknown", "Reconciling")


def test_a_reference_that_cannot_be_parsed_waits_for_a_person() -> None:
    world = World(Unresolved(Reason.INVALID_SPEC, "spec.image: expected a tag", stalled=True)).settle()
    assert world.condition("Stalled") == ("True", "InvalidSpec")


def test_pods_that_cannot_be_made_are_told_of_in_words_that_stay() -> None:
    world = World("A").settle()
    world.pods.clear()
    (deployment,) = (child for child in world.children.values() if child["kind"] == "Deployment")
    for name in ("detector-559aead0-x-abcde", "detector-559aead0-x-fghij"):
        why = f'pods "{name}" is forbidden: exceeded quota: small'
        failed = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": why}
        deployment["status"] = {"conditions": [failed]}
        decision = world.decide()
        assert decision.status is not None
        told = {item.type: (item.reason, item.message) for item in decision.status.conditions}
        assert told["Ready"][0] == told["ModelLoaded"][0] == "Unschedulable"
        assert "pods cannot be made: a pod is forbidden: exceeded quota: small" in told["ModelLoaded"][1]
        assert "exceeded quota" in told["Ready"][1]
        assert name not in str(told)
