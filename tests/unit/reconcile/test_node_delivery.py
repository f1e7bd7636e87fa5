"""Whole passes where nodes deliver, one sentence a case."""

from datetime import timedelta

import pytest

from edgemodel.reconcile.nodes import percent, read_nodes, transfer
from tests.unit.reconcile.fleets import fleet, kinds, next_version, serving
from tests.unit.reconcile.world import DIGESTS, LOADING

GIB = 1 << 30


# The way of a version


def test_no_pod_is_made_before_the_nodes_have_the_first_version() -> None:
    world = fleet().settle()
    assert (world.sizes(), world.slots()) == ({}, {"candidate": "A"})
    assert world.condition("Ready") == ("False", "Downloading")
    assert world.condition("ArtifactDelivered") == ("False", "Downloading")
    assert world.condition("Progressing") == ("True", "Promoting")
    assert world.last.requeue_after is None
    world.hold("A", "n1").settle()
    assert world.sizes() == {}
    assert "on 1 of 2 nodes; 50 %" in world.message("ArtifactDelivered")
    world.hold("A", "n2").settle()
    assert world.sizes() == {"A": 1}
    assert world.condition("ArtifactDelivered") == ("True", "Pulled")
    assert world.last.requeue_after == 600
    world.report("A", LOADING).settle()
    assert world.condition("Ready") == ("False", "Starting")
    world.ready("A").settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.told() == [
        "ArtifactResolved",
        "ArtifactVerified",
        "RolloutStarted",
        "ArtifactPulled",
        "ModelLoaded",
        "Promoted",
    ]


def test_pods_mount_the_model_and_need_no_config_map() -> None:
    world = serving()
    assert kinds(world) == {"Deployment", "PodDisruptionBudget", "Service"}
    (pod,) = world.of("A")
    assert pod["spec"]["volumes"][0] == {
        "name": "models",
        "csi": {
            "driver": "models.edgemodel.io",
            "readOnly": True,
            "volumeAttributes": {"model": "detector", "digest": str(DIGESTS["A"])},
        },
    }


@pytest.mark.parametrize("strategy", ["Surge", "StopFirst"])
def test_what_serves_is_not_touched_before_the_nodes_have_the_next_version(strategy: str) -> None:
    world = next_version(serving(rollout={"strategy": strategy}))
    before = dict(world.children)
    for done in (0, 30, 99):
        world.hold("B", state="Downloading", bytes=done, total=100).later(3600).settle()
        assert (world.sizes(), world.selected()) == ({"A": 1}, "A")
        assert world.condition("Ready") == ("True", "Serving")
        assert world.condition("Progressing") == ("True", "Replacing")
    assert world.children == before
    world.hold("B", kind="Delta", bytes=3, total=3, savedBytes=90).settle()
    assert "B" in world.sizes()
    assert world.condition("ArtifactDelivered") == ("True", "DeltaApplied")
    assert "180 bytes did not have to come" in world.message("ArtifactDelivered")


def test_an_update_by_delta_is_told_once_and_its_bytes_stand_in_status() -> None:
    world = next_version(serving())
    world.hold("B", kind="Delta", bytes=3, total=3, savedBytes=90).settle().ready("B").settle()
    world.later(5).settle()
    assert world.slots() == {"active": "B", "last_good": "A"}
    assert [told for told in world.told() if told in ("DeltaApplied", "ArtifactPulled")] == ["DeltaApplied"]
    transfer_ = world.model.status.transfer
    assert transfer_ is not None
    assert (transfer_.kind, transfer_.bytes, transfer_.total, transfer_.saved_bytes) == ("Delta", 6, 6, 180)


def test_a_delta_that_was_not_used_is_told_with_its_reason() -> None:
    world = next_version(serving())
    world.hold(
        "B", kind="Full", bytes=9, total=9, fallbackReason="the full pull is quicker on this link"
    ).settle()
    assert "DeltaFellBack" in world.told()
    assert world.model.status.transfer is not None
    assert "quicker" in world.model.status.transfer.fallback_reason
    world.later(60).settle()
    assert "DeltaFellBack" not in world.told()


def test_a_version_from_a_bundle_counts_like_any_other() -> None:
    world = fleet().settle().hold("A", kind="Imported").settle()
    assert world.condition("ArtifactDelivered") == ("True", "Imported")
    assert world.sizes() == {"A": 1}


def test_the_deadline_counts_from_delivery() -> None:
    world = next_version(serving(rollout={"progressDeadline": "90s"}))
    world.later(5000).settle().hold("B").settle()
    assert world.last.requeue_after == 90
    world.later(90).settle()
    assert world.condition("RolledBack") == ("True", "ProgressDeadlineExceeded")
    assert world.condition("ArtifactDelivered") == ("True", "Pulled")
    assert world.sizes() == {"A": 1}


def test_a_pause_lets_the_download_go_on_and_holds_the_start() -> None:
    world = serving()
    world.edit(rollout={"paused": True})
    next_version(world).hold("B").settle()
    assert (world.sizes(), world.slots()) == ({"A": 1}, {"active": "A", "candidate": "B"})
    assert world.condition("Progressing") == ("False", "Paused")
    assert world.condition("ArtifactDelivered") == ("True", "Pulled")
    assert "UpdatePaused" in world.told()
    world.later(10**6).settle()
    world.edit(rollout={"paused": False})
    world.settle()
    assert world.sizes() == {"A": 1, "B": 1}


def test_a_paused_first_version_is_brought_and_not_started() -> None:
    world = fleet(rollout={"paused": True}).settle().hold("A").settle()
    assert world.sizes() == {}
    assert world.condition("Ready") == ("False", "Paused")


# What keeps it


@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [
        ("Failed", "DiskFull", ("False", "DiskFull")),
        ("Failed", "TransferFailed", ("False", "TransferFailed")),
        ("Failed", "RegistryUnreachable", ("False", "RegistryUnreachable")),
        ("Failed", "SignatureInvalid", ("False", "SignatureInvalid")),
        ("Failed", "Whatever", ("False", "TransferFailed")),
        ("Failed", "Serving", ("False", "TransferFailed")),
        ("Pending", "WaitingForWindow", ("False", "WaitingForWindow")),
        ("Downloading", "RateLimited", ("False", "RateLimited")),
        ("Verifying", "", ("False", "Downloading")),
    ],
)
def test_what_a_node_says_is_told_and_touches_nothing_that_serves(
    state: str, reason: str, told: tuple[str, str]
) -> None:
    world = next_version(serving()).hold("B", "n2")
    world.hold("B", "n1", state=state, reason=reason, message="it is so", bytes=1, total=2).settle()
    assert world.condition("ArtifactDelivered") == told
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Degraded") == ("False", "None")
    assert world.sizes() == {"A": 1}
    if state == "Failed":
        assert "node n1: It is so." in world.message("ArtifactDelivered")
    if reason == "WaitingForWindow":
        assert world.condition("Progressing") == ("False", "WaitingForWindow")


def test_an_agent_s_words_are_made_fit_for_status() -> None:
    world = fleet().settle()
    world.hold(
        "A", state="Failed", reason="TransferFailed", message="get https://u:secret@host/\x1b[2J\nfailed"
    ).settle()
    assert "secret" not in world.message("ArtifactDelivered")
    assert "\x1b" not in world.message("ArtifactDelivered")


def test_progress_is_written_in_steps_and_a_world_at_rest_has_a_status_at_rest() -> None:
    world = next_version(serving())
    writes = 0
    for done in range(200):
        world.hold("B", state="Downloading", bytes=done * GIB, total=200 * GIB).later(1)
        writes += world.turn().status is not None
    assert 19 <= writes <= 21
    assert world.later(3600).turn().status is None


# Nodes that come, go and fail


def test_a_node_that_is_offline_holds_up_nobody_and_status_says_since_when() -> None:
    world = serving("n1", "n2", "n3")
    world.nodes["n3"].silence(world.now)
    heard = world.now
    next_version(world.later(181)).hold("B", "n1", "n2").settle()
    assert world.sizes() == {"A": 1, "B": 1}
    assert world.condition("Degraded") == ("True", "SomeNodesOffline")
    seen = f"n3 (last heard of at {heard:%Y-%m-%dT%H:%M:%SZ})"
    assert seen in world.message("Degraded")
    assert seen in world.message("ArtifactDelivered")
    nodes = world.model.status.nodes
    assert nodes is not None
    assert (nodes.total, nodes.ready, nodes.offline, nodes.summary) == (3, 2, 1, "2/3")
    first = world.model.status.node_statuses[0]
    assert (first.node, first.state, first.reason, first.last_seen) == ("n3", "Offline", "NoHeartbeat", heard)
    assert world.told().count("NodeOffline") == 1
    assert world.later(60).turn().status is None

    world.nodes["n3"].silence(world.now + timedelta(days=9))
    world.ready("B").settle().later(5).settle()
    assert world.told().count("NodeRejoined") == 1
    assert world.condition("ArtifactDelivered") == ("False", "Downloading")
    assert world.condition("Ready") == ("True", "Serving")
    world.hold("B", "n3").settle()
    assert world.condition("ArtifactDelivered") == ("True", "Pulled")
    assert world.condition("Degraded") == ("False", "None")


def test_no_node_online_is_unknown_and_what_serves_goes_on() -> None:
    world = next_version(serving())
    for node in world.nodes.values():
        node.ready = False
    world.settle()
    assert world.condition("ArtifactDelivered") == ("Unknown", "NodesOffline")
    assert (world.sizes(), world.condition("Ready")) == ({"A": 1}, ("True", "Serving"))
    assert "not ready" in world.message("ArtifactDelivered")


def test_a_node_that_joins_touches_neither_the_active_version_nor_a_rollout_under_way() -> None:
    world = next_version(serving()).hold("B").settle()
    assert world.sizes() == {"A": 1, "B": 1}
    world.add_node("n3")
    world.settle()
    assert world.sizes() == {"A": 1, "B": 1}
    world.ready("B").settle().later(5).settle()
    assert world.sizes() == {"B": 1}
    world.nodes["n3"].hold("B", state="Failed", reason="DiskFull")
    world.settle()
    assert (world.sizes(), world.condition("Ready")) == ({"B": 1}, ("True", "Serving"))
    assert world.condition("ArtifactDelivered") == ("False", "DiskFull")


def test_a_node_that_pods_still_run_on_counts_whatever_its_labels_are_now() -> None:
    world = serving("n1", podTemplate={"nodeSelector": {"kubernetes.io/hostname": "n1"}})
    world.nodes["n1"].labels = {}
    world.settle()
    assert world.model.status.nodes is not None
    assert world.model.status.nodes.summary == "1/1"


def test_no_node_that_fits_is_told_as_such() -> None:
    world = fleet(delivery="Node", podTemplate={"nodeSelector": {"gpu": "yes"}}).settle()
    assert world.condition("ArtifactDelivered") == ("Unknown", "NodesOffline")
    assert "podTemplate" in world.message("ArtifactDelivered")


def test_delivery_by_nodes_without_an_agent_says_what_is_missing() -> None:
    world = fleet(delivery="Node")
    for node in world.nodes.values():
        node.agent = False
    world.settle()
    assert world.condition("ArtifactDelivered") == ("False", "NoAgent")
    assert world.condition("Ready") == ("False", "NoAgent")
    assert "spec.delivery to Pod" in world.message("Ready")


# Sums


def test_a_version_that_one_node_lacks_never_counts_as_all_there() -> None:
    world = fleet("n1").settle()
    world.hold("A", state="Downloading", bytes=100, total=100)
    facts = read_nodes(world.observe(), (), world.now)
    assert percent(facts, str(DIGESTS["A"])) == 95
    assert transfer(facts, None) is None


def test_status_lists_those_that_are_not_ready_first_and_fifty_at_most() -> None:
    world = fleet(*(f"n{number:02}" for number in range(60))).settle().hold("A")
    world.nodes["n59"].hold("A", state="Failed", reason="DiskFull")
    world.settle()
    listed = world.model.status.node_statuses
    assert (len(listed), listed[0].node, listed[0].reason) == (50, "n59", "DiskFull")
    assert world.model.status.nodes is not None
    assert world.model.status.nodes.summary == "59/60"


def test_an_agent_that_begins_has_not_come_back() -> None:
    world = serving("n1", "n2")
    world.nodes["n2"].heard = None  # its EdgeNode is there before its first beat
    world.later(5).settle()
    assert world.model.status.node_statuses[0].state == "Offline"
    world.nodes["n2"].heard = world.now + timedelta(days=9)
    world.later(5).settle()
    assert world.model.status.node_statuses[0].state != "Offline"
    assert "NodeRejoined" not in world.told()
