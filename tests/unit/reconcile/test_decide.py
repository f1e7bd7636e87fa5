"""Whole passes over a small cluster in which a version serves, one sentence a case."""

import pytest

from edgemodel.reconcile.decision import Decision
from tests.unit.reconcile.world import (
    World,
    judged,
    kinds,
    server_ended,
    serving,
)


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


def test_a_model_whose_address_is_somebody_elses_is_not_ready() -> None:
    world = World()
    world.settle().ready("A").settle()
    assert world.condition("Ready") == ("True", "Serving")
    del world.children["Service", "detector"]
    world.conflicts = ("Service/detector",)
    world.turn()
    assert world.condition("Ready") == ("False", "NameConflict")
    assert world.condition("Stalled") == ("True", "NameConflict")
