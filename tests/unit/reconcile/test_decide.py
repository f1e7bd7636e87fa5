"""Whole passes over a small cluster, one sentence a case."""

from collections.abc import Callable
from typing import Any

import pytest

from edgemodel.api.conditions import Reason
from edgemodel.reconcile.decision import Decision
from edgemodel.reconcile.observed import Unresolved
from tests.unit.reconcile.world import (
    DOWNLOADING,
    LOADING,
    UNSCHEDULABLE,
    World,
    fetch_ended,
    judged,
    server_ended,
)

UNREACHABLE = Unresolved(Reason.REGISTRY_UNREACHABLE, "registry.site.local did not answer within 10 s")
LOOKING = Unresolved(Reason.RECONCILING, "it is being looked up")
UNSIGNED = (Reason.SIGNATURE_MISSING, "no signature was found; sign it with edgemodel sign")


def serving(letter: str = "A", **spec: Any) -> World:
    """Return a world in which a version serves and nothing is left to do."""
    world = World(letter, **spec).settle()
    world.ready(letter).settle().told()
    assert world.condition("Ready") == ("True", "Serving")
    return world


def kinds(decision: Decision) -> list[str]:
    return [child["kind"] for child in decision.apply]


# The first version


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


# The next version


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


# Trust


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        (Reason.SIGNATURE_MISSING, "SignatureRejected"),
        (Reason.KEY_UNKNOWN, "SignatureRejected"),
        (Reason.DIGEST_MISMATCH, "SignatureRejected"),
        (Reason.NO_MATCHING_POLICY, "SignatureRejected"),
        (Reason.DOWNGRADE_REFUSED, "DowngradeRefused"),
    ],
)
def test_a_refused_new_version_changes_nothing_but_status(reason: Reason, event: str) -> None:
    world = serving()
    world.target = judged("B", refusal=(reason, "it does not pass"))
    assert world.turn().apply == ()
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("ArtifactVerified") == ("False", reason)
    assert world.condition("Progressing") == ("False", "PolicyRefused")
    assert world.condition("Stalled") == ("True", "PolicyRefused")
    assert "Version 1.1.0 (sha256:559aead08264) goes on serving." in world.message("ArtifactVerified")
    assert world.told() == ["ArtifactResolved", event]
    world.later(3600).settle()
    assert world.told() == []


def test_warnings_of_policies_are_told() -> None:
    world = World(judged("A", warnings=("policy lab: no signature",))).settle()
    assert world.condition("ArtifactVerified") == ("True", "Verified")
    assert "Policy lab: no signature." in world.message("ArtifactVerified")


@pytest.mark.parametrize("also_target", [True, False], ids=["it is the target", "another is the target"])
def test_an_active_version_that_policies_refuse_now_goes_on_serving_and_is_not_started_again(
    also_target: bool,
) -> None:
    world = serving(replicas=2)
    refused = judged("A", refusal=(Reason.KEY_REVOKED, "key release was revoked"))
    if also_target:
        world.target = refused
    else:
        world.active, world.target = refused, UNREACHABLE
    world.config = {"policies.json": '["today"]'}
    assert kinds(world.turn()) == ["ConfigMap"]
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Degraded") == ("True", "PolicyRefused")
    assert "key release was revoked" in world.message("Degraded").lower()

    world.edit(replicas=4, podTemplate={"labels": {"new": "label"}})
    world.settle()
    assert world.sizes() == {"A": 2}
    assert "Deployment" not in kinds(world.last)
    world.edit(replicas=1)
    world.settle()
    assert world.sizes() == {"A": 1}

    del world.children["Deployment", "detector-559aead0"]
    world.settle().settle()
    assert world.sizes() == {}
    assert world.condition("Ready") == ("False", "KeyRevoked")
    assert "none is started" in world.message("Ready")


def test_a_policy_that_is_mended_lets_the_active_version_be_as_the_spec_says() -> None:
    world = serving()
    world.target = judged("A", refusal=(Reason.NO_MATCHING_POLICY, "no policy matches"))
    world.settle()
    world.edit(replicas=3)
    world.settle()
    world.target = judged("A")
    world.settle()
    assert world.sizes() == {"A": 3}
    assert world.told()[-1] == "ArtifactVerified"


def test_a_candidate_that_policies_refuse_now_is_dropped() -> None:
    world = serving()
    world.target = judged("B")
    world.settle()
    world.target = judged("B", refusal=UNSIGNED)
    world.settle()
    assert (world.sizes(), world.slots()) == ({"A": 1}, {"active": "A"})


def test_an_expired_active_version_serves_and_is_called_stale() -> None:
    world = serving()
    world.target = judged("A", stale="version 1.1.0 expired on 2026-01-01")
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Degraded") == ("True", "Stale")


def test_a_registry_that_goes_away_touches_nothing() -> None:
    world = serving()
    world.target = UNREACHABLE
    decision = world.turn()
    assert (decision.apply, decision.delete, decision.events) == ((), (), ())
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("ArtifactVerified") == ("Unknown", "RegistryUnreachable")
    assert world.condition("Progressing") == ("False", "Complete")
    world.edit(replicas=3)
    world.settle()
    assert world.sizes() == {"A": 3}


# The rest of the world


def test_a_world_at_rest_wants_nothing() -> None:
    world = serving(replicas=2, pullSecrets=[{"name": "a"}], modelFile="m.onnx")
    world.later(86400)
    assert world.turn() == Decision()


def test_scaling_changes_the_deployment_and_nothing_else() -> None:
    world = serving()
    world.edit(replicas=3)
    assert kinds(world.turn()) == ["Deployment"]
    world.settle()
    assert world.sizes() == {"A": 3}
    assert world.condition("Degraded") == ("True", "ReplicasMissing")


def test_scaling_to_nothing_is_not_ready_and_says_why() -> None:
    world = serving()
    world.edit(replicas=0)
    world.settle()
    assert world.condition("Ready") == ("False", "NoReadyPods")
    assert "spec.replicas is 0" in world.message("Ready")


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget", "ConfigMap"])
def test_a_child_that_was_deleted_is_made_again(kind: str) -> None:
    world = serving()
    world.children = {key: child for key, child in world.children.items() if key[0] != kind}
    assert kinds(world.turn()) == [kind]
    world.settle()


def test_a_child_that_was_edited_is_put_right() -> None:
    world = serving()
    world.children["Service", "detector"]["spec"]["selector"]["app"] = "x"
    world.children["Deployment", "detector-559aead0"]["spec"]["template"]["spec"]["containers"][0][
        "args"
    ] = []
    assert kinds(world.turn()) == ["Deployment", "Service"]
    world.settle()


def test_a_field_that_is_no_longer_set_is_taken_away() -> None:
    world = serving(podTemplate={"nodeSelector": {"disk": "ssd"}})
    world.edit(podTemplate={})
    (child,) = world.turn().apply
    assert "nodeSelector" not in child["spec"]["template"]["spec"]


def test_a_service_monitor_comes_and_goes_with_its_kind() -> None:
    world = serving()
    world.monitors = True
    assert kinds(world.turn()) == ["ServiceMonitor"]
    world.settle()


def test_a_deployment_that_nobody_remembers_is_removed() -> None:
    world = serving()
    stray = World("C")
    stray.turn()
    name = next(name for kind, name in stray.children if kind == "Deployment")
    world.children["Deployment", name] = stray.children["Deployment", name]
    world.settle()
    assert world.sizes() == {"A": 1}


def test_a_name_that_belongs_to_somebody_else_is_left_alone() -> None:
    world = World("A")
    world.conflicts = ("Service/detector",)
    world.settle()
    assert not world.children
    assert world.condition("Ready") == ("False", "NameConflict")
    assert world.condition("Stalled") == ("True", "NameConflict")
    assert "Service/detector" in world.message("Stalled")
    world.conflicts = ()
    world.settle().ready("A").settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_name_that_is_taken_later_stops_changes_and_not_the_serving() -> None:
    world = serving()
    world.conflicts = ("ConfigMap/detector-delivery",)
    del world.children["ConfigMap", "detector-delivery"]
    world.target = judged("B")
    world.settle()
    assert world.sizes() == {"A": 1}
    assert "ConfigMap" not in {kind for kind, _ in world.children}
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Stalled") == ("True", "NameConflict")


def test_suspend_leaves_everything_alone() -> None:
    world = serving()
    world.edit(suspend=True, replicas=5)
    world.target = judged("B")
    decision = world.turn()
    assert (decision.apply, decision.delete, decision.requeue_after) == ((), (), None)
    assert world.condition("Ready") == ("True", "Suspended")
    assert world.condition("Progressing") == ("False", "Complete")
    assert world.turn() == Decision()
    world.edit(suspend=False)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.sizes() == {"A": 5, "B": 5}


def test_a_model_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    world = serving()
    metadata = world.model.metadata.model_copy(update={"deletion_timestamp": world.now})
    world.model = world.model.model_copy(update={"metadata": metadata})
    world.target = judged("B")
    assert world.turn() == Decision()


def test_pods_that_stop_answering_are_told_and_not_taken_for_a_failed_rollout() -> None:
    world = serving()
    world.report("A", server_ended("boom")).settle()
    assert world.slots() == {"active": "A"}
    assert world.condition("Ready") == ("False", "ServerCrashed")
    assert world.condition("Degraded") == ("False", "None")


def test_one_crashed_pod_of_several_is_degraded_and_not_down() -> None:
    world = serving(replicas=2)
    world.report("A", server_ended("boom"), 1).settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("ModelLoaded") == ("True", "Loaded")
    assert world.condition("Degraded") == ("True", "ReplicasMissing")
    assert "boom" in world.message("Degraded")


@pytest.mark.parametrize("lost", ["status", "deletions", "everything but the Service"])
def test_an_operator_that_died_between_two_writes_is_continued(lost: str) -> None:
    world = serving(replicas=2)
    world.target = judged("B")
    world.settle().ready("B")
    before, status = dict(world.children), world.model.status
    world.turn()
    if lost == "status":
        world.model = world.model.model_copy(update={"status": status})
    elif lost == "everything but the Service":
        service = world.children["Service", "detector"]
        world.children = {**before, ("Service", "detector"): service}
        world.model = world.model.model_copy(update={"status": status})
    else:
        world.turn()
    world.settle()
    assert (world.sizes(), world.selected()) == ({"B": 2}, "B")
    assert world.slots() == {"active": "B", "last_good": "A"}


def unsigned_next(world: World) -> None:
    world.target = judged("B", refusal=UNSIGNED)


def revoked(world: World) -> None:
    world.target = judged("A", refusal=(Reason.KEY_REVOKED, "key release was revoked"))


def stale(world: World) -> None:
    world.target = judged("A", stale="it has expired")


def paused_next(world: World) -> None:
    world.edit(rollout={"paused": True})
    world.target = judged("B")


def taken_back_next(world: World) -> None:
    world.target = judged("B")
    world.settle().fail("B", "ModelLoadFailed")


@pytest.mark.parametrize("story", [unsigned_next, revoked, stale, paused_next, taken_back_next])
def test_a_restarted_operator_undoes_nothing_before_it_knows_as_much(story: Callable[[World], None]) -> None:
    world = serving()
    story(world)
    known = world.settle().target
    world.told()
    world.target = LOOKING
    assert world.turn() == Decision()
    world.target = known
    assert world.turn() == Decision()


def test_a_refused_active_version_is_not_made_again_because_nobody_can_judge_it_now() -> None:
    world = serving()
    revoked(world)
    world.settle()
    world.target = UNREACHABLE
    del world.children["Deployment", "detector-559aead0"]
    world.settle().settle()
    assert world.sizes() == {}
    assert world.condition("Degraded") == ("True", "PolicyRefused")
    world.target = judged("A")
    world.settle().ready("A").settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Degraded") == ("False", "None")


def test_transition_times_move_with_status_only() -> None:
    world = serving()
    since = {item.type: item.last_transition_time for item in world.model.status.conditions}
    world.later(60)
    world.target = UNREACHABLE
    world.settle()
    moved = {
        item.type for item in world.model.status.conditions if item.last_transition_time != since[item.type]
    }
    assert moved == {"ArtifactVerified"}


def test_times_in_status_have_whole_seconds() -> None:
    world = World("A")
    world.now = world.now.replace(microsecond=123456)
    world.settle()
    assert world.model.status.conditions[0].last_transition_time.microsecond == 0


def test_a_deployment_of_a_version_that_was_taken_back_goes_whoever_made_it_anew() -> None:
    world = World()
    world.settle().ready("A").settle()
    before = set(world.children)
    world.target = judged("B")
    world.turn()
    restored = {key: world.children[key] for key in world.children.keys() - before}
    assert restored
    world.settle().fail("B", "ModelLoadFailed").settle()
    assert world.condition("RolledBack")[0] == "True"
    world.children |= restored
    world.turn()
    assert not restored.keys() & world.children.keys()


def test_a_model_whose_address_is_somebody_elses_is_not_ready() -> None:
    world = World()
    world.settle().ready("A").settle()
    assert world.condition("Ready") == ("True", "Serving")
    del world.children["Service", "detector"]
    world.conflicts = ("Service/detector",)
    world.turn()
    assert world.condition("Ready") == ("False", "NameConflict")
    assert world.condition("Stalled") == ("True", "NameConflict")
