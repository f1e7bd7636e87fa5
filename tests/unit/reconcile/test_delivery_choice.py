"""Who delivers, nodes or pods, and how that changes, one sentence a case."""

from datetime import timedelta

from edgemodel.reconcile.nodes import delivery_mode, read_nodes
from tests.unit.reconcile.fleets import fleet, kinds, serving
from tests.unit.reconcile.world import SHORT, World


def mode(world: World) -> str:
    observed = world.observe()
    facts = read_nodes(observed, (), world.now)
    return delivery_mode(world.model, observed.children, facts, ())


def test_nodes_deliver_when_every_ready_node_that_fits_has_an_agent() -> None:
    world = fleet("n1", "n2")
    assert mode(world) == "Node"
    world.nodes["n2"].agent = False
    assert mode(world) == "Pod"
    world.nodes["n2"].ready = False
    assert mode(world) == "Node"
    world.nodes["n1"].silence(world.now - timedelta(seconds=181))
    assert mode(world) == "Pod"


def test_without_nodes_pods_fetch_for_themselves() -> None:
    assert mode(World("A")) == "Pod"


def test_the_spec_decides_over_what_fits() -> None:
    assert mode(fleet("n1", delivery="Pod")) == "Pod"
    assert mode(World("A", delivery="Node")) == "Node"


def test_what_runs_stays_with_what_it_was_started_with() -> None:
    world = World("A").settle().ready("A").settle()
    world.add_node("n1")
    world.settle()
    assert (mode(world), world.model.status.nodes) == ("Pod", None)
    world = serving("n1")
    world.nodes["n1"].agent = False
    world.settle()
    assert (mode(world), world.condition("Ready")) == ("Node", ("True", "Serving"))


def test_an_agent_that_misses_beats_does_not_change_who_delivers_to_a_first_version() -> None:
    world = fleet("n1", "n2").settle()
    world.nodes["n2"].silence(world.now - timedelta(days=1))
    world.settle()
    assert mode(world) == "Node"


def test_a_model_goes_over_to_its_nodes_only_when_they_have_it() -> None:
    world = World("A").settle().ready("A").settle()
    world.add_node("n1")
    world.edit(delivery="Node")
    before = world.children["Deployment", f"detector-{SHORT['A'][:8]}"]
    world.settle()
    assert world.children["Deployment", f"detector-{SHORT['A'][:8]}"] is before
    assert "ConfigMap" in kinds(world)
    assert world.condition("ArtifactDelivered") == ("False", "Downloading")
    world.hold("A").settle()
    after = world.children["Deployment", f"detector-{SHORT['A'][:8]}"]
    assert "csi" in after["spec"]["template"]["spec"]["volumes"][0]
    assert "ConfigMap" in kinds(world), "pods that fetched may have to do so again"
    world.pods.clear()
    world.settle()
    assert "ConfigMap" not in kinds(world)
    assert world.slots() == {"active": "A"}


def test_a_status_of_another_release_has_told_nothing() -> None:
    world = fleet("n1").settle()
    world.nodes["n1"].hold("A", state="Hibernating")
    world.settle()
    assert world.condition("ArtifactDelivered") == ("False", "Downloading")
