"""Of what nodes and agents report, only that makes a pass from which something follows, and readings are stale before it."""

from typing import Any

import pytest

from edgemodel.controller.node_sightings import (
    NODES_SECONDS,
    PLACING_SECONDS,
    PROGRESS_SECONDS,
    NodeSightings,
)
from edgemodel.controller.sightings import Key, Sightings
from tests.unit.controller.told_queue import Queue

DETECTOR, SPEAKER = Key("EdgeModel", "vision", "detector"), Key("EdgeModel", "audio", "speaker")
N1, N2 = Key("EdgeNode", "", "n1"), Key("EdgeNode", "", "n2")


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def sightings(queue: Queue) -> Sightings:
    return Sightings(queue)


@pytest.fixture
def nodes(queue: Queue, sightings: Sightings) -> NodeSightings:
    made = NodeSightings(
        queue,
        sightings,
        nodes_changed=lambda: queue.told.append("nodes"),
        edge_nodes_changed=lambda: queue.told.append("edge nodes"),
        models_changed=lambda: queue.told.append("models"),
    )
    sightings.placing = made.place
    sightings.model(None, {"namespace": "vision", "name": "detector", "generation": 1})
    sightings.model(None, {"namespace": "audio", "name": "speaker", "generation": 1})
    queue.taken()
    return made


def node(
    name: str = "n1", *, ready: str = "True", spec: Any = None, status: Any = None, **meta: Any
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready, "lastHeartbeatTime": "now"}]
    return {
        "metadata": {"name": name, "uid": "1", **meta},
        "spec": spec or {},
        "status": {"conditions": conditions, **(status or {})},
    }


def held(model: Key = DETECTOR, **more: Any) -> dict[str, Any]:
    return {
        "namespace": model.namespace,
        "name": model.name,
        "digest": "sha256:a",
        "state": "Downloading",
        **more,
    }


def edge_node(*models: dict[str, Any], name: str = "n1", key: str = "k", **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": "1", "generation": 1, **meta},
        "status": {"sealingKey": key, "models": models},
    }


def both(seconds: float) -> list[Any]:
    return [(DETECTOR, seconds), (SPEAKER, seconds)]


# Nodes


def test_a_node_that_comes_or_goes_has_models_looked_at_after_the_reading_is_stale(
    nodes: NodeSightings, queue: Queue
) -> None:
    nodes.node("ADDED", node())
    assert queue.taken() == ["nodes", *both(NODES_SECONDS)]
    nodes.node("DELETED", node())
    assert queue.taken() == ["nodes", *both(NODES_SECONDS)]


@pytest.mark.parametrize(
    "changed",
    [
        node(labels={"site": "north"}),
        node(ready="Unknown"),
        node(spec={"unschedulable": True}),
        node(spec={"taints": [{"key": "a", "effect": "NoSchedule"}]}),
        node(uid="2"),
        node(deletionTimestamp="now"),
    ],
)
def test_what_placing_depends_on_is_noticed(
    nodes: NodeSightings, queue: Queue, changed: dict[str, Any]
) -> None:
    nodes.node(None, node())
    nodes.edge_node(None, edge_node())
    queue.taken()
    nodes.node("MODIFIED", changed)
    assert queue.taken() == ["nodes", (N1, PLACING_SECONDS), *both(NODES_SECONDS)]
    nodes.node("MODIFIED", changed)
    assert queue.taken() == []


def test_what_a_kubelet_reports_all_day_makes_no_pass(nodes: NodeSightings, queue: Queue) -> None:
    nodes.node(None, node())
    queue.taken()
    nodes.node(
        "MODIFIED",
        node(status={"images": [{"names": ["a"]}], "allocatable": {"cpu": "2"}}, resourceVersion="9"),
    )
    assert queue.taken() == []


# EdgeNodes


def test_an_edge_node_that_is_new_is_brought_up_to_date_and_models_are_looked_at(
    nodes: NodeSightings, queue: Queue
) -> None:
    nodes.edge_node("ADDED", edge_node())
    assert queue.taken() == ["edge nodes", N1, *both(NODES_SECONDS)]
    assert nodes.edge_nodes == (N1,)
    nodes.edge_node("DELETED", edge_node())
    assert queue.taken() == ["edge nodes", N1, *both(NODES_SECONDS)]
    assert nodes.edge_nodes == ()


@pytest.mark.parametrize(
    "changed",
    [
        edge_node(key="other"),
        edge_node(generation=2),
        edge_node(uid="2"),
        edge_node(ownerReferences=[{"uid": "n"}]),
    ],
)
def test_its_own_pass_comes_when_its_key_or_spec_changes(
    nodes: NodeSightings, queue: Queue, changed: dict[str, Any]
) -> None:
    nodes.edge_node(None, edge_node())
    queue.taken()
    nodes.edge_node("MODIFIED", changed)
    assert queue.taken() == ["edge nodes", (N1, PLACING_SECONDS)]


def test_only_the_model_whose_state_changed_gets_a_pass(nodes: NodeSightings, queue: Queue) -> None:
    nodes.edge_node(None, edge_node(held(), held(SPEAKER)))
    queue.taken()
    nodes.edge_node("MODIFIED", edge_node(held(state="Ready"), held(SPEAKER)))
    assert queue.taken() == ["edge nodes", DETECTOR]
    nodes.edge_node("MODIFIED", edge_node(held(state="Ready"), held(SPEAKER, reason="DiskFull")))
    assert queue.taken() == ["edge nodes", SPEAKER]
    nodes.edge_node("MODIFIED", edge_node(held(state="Ready")))
    assert queue.taken() == ["edge nodes", SPEAKER]
    nodes.edge_node("MODIFIED", edge_node(held(state="Ready")))
    assert queue.taken() == ["edge nodes"]


def test_bytes_that_tick_make_a_pass_now_and_then(nodes: NodeSightings, queue: Queue) -> None:
    nodes.edge_node(None, edge_node(held(bytes=1)))
    queue.taken()
    for count in range(2, 100):
        nodes.edge_node("MODIFIED", edge_node(held(bytes=count)))
    told = [entry for entry in queue.taken() if entry != "edge nodes"]
    assert set(told) == {(DETECTOR, PROGRESS_SECONDS)}, "the queue keeps the earliest of them"


def test_a_node_found_to_have_altered_files_makes_a_pass_at_once(nodes: NodeSightings, queue: Queue) -> None:
    nodes.edge_node(None, edge_node(held(state="Ready")))
    queue.taken()
    nodes.edge_node("MODIFIED", edge_node(held(state="Ready", alteredAt="2026-01-01T00:00:00Z")))
    assert queue.taken() == ["edge nodes", DETECTOR]


def test_a_login_that_failed_has_credentials_looked_at_again(nodes: NodeSightings, queue: Queue) -> None:
    nodes.edge_node(None, edge_node(held()))
    queue.taken()
    failed = edge_node(held(state="Failed", reason="AuthenticationFailed"))
    nodes.edge_node("MODIFIED", failed)
    assert queue.taken() == ["edge nodes", (N1, PLACING_SECONDS), DETECTOR]
    nodes.edge_node("MODIFIED", failed)
    assert queue.taken() == ["edge nodes"]


def test_models_that_an_agent_makes_up_make_no_passes(nodes: NodeSightings, queue: Queue) -> None:
    nodes.edge_node(None, edge_node())
    queue.taken()
    nodes.edge_node("MODIFIED", edge_node(held(Key("EdgeModel", "vision", "invented"))))
    assert queue.taken() == ["edge nodes"]


def test_an_agents_condition_concerns_the_models_it_holds(nodes: NodeSightings, queue: Queue) -> None:
    nodes.edge_node(None, edge_node(held()))
    queue.taken()
    changed = edge_node(held())
    changed["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    nodes.edge_node("MODIFIED", changed)
    assert queue.taken() == ["edge nodes", DETECTOR]


# EdgeModels and policies


def test_what_nodes_depend_on_in_a_model_has_every_edge_node_brought_up_to_date(
    nodes: NodeSightings, sightings: Sightings, queue: Queue
) -> None:
    for name in ("n1", "n2"):
        nodes.edge_node(None, edge_node(name=name))
    queue.taken()
    placing = ["models", (N1, PLACING_SECONDS), (N2, PLACING_SECONDS)]
    meta = {"namespace": "vision", "name": "detector", "generation": 1}
    slot = {"digest": "sha256:a", "image": "r/m@sha256:a"}
    for changed in (
        {"slots": {"candidate": slot}},
        {"slots": {"candidate": slot}, "nodes": {"total": 2}},
        {"slots": {"active": slot}, "nodes": {"total": 2}},
        {"slots": {"active": {**slot, "modelFile": "a.onnx"}}, "nodes": {"total": 2}},
        {},
    ):
        sightings.model("MODIFIED", meta, changed)
        assert queue.taken() == [*placing, DETECTOR]
    sightings.model("MODIFIED", {**meta, "generation": 2}, {})
    assert queue.taken() == [*placing, DETECTOR]
    sightings.model("MODIFIED", {**meta, "generation": 2, "deletionTimestamp": "now"}, {})
    assert queue.taken() == [*placing, DETECTOR]
    sightings.model("DELETED", {**meta, "generation": 2, "deletionTimestamp": "now"}, {})
    assert queue.taken() == [*placing, DETECTOR]


def test_status_that_no_node_depends_on_concerns_none(
    nodes: NodeSightings, sightings: Sightings, queue: Queue
) -> None:
    nodes.edge_node(None, edge_node())
    queue.taken()
    meta = {"namespace": "vision", "name": "detector", "generation": 1}
    sightings.model("MODIFIED", meta, {"readyReplicas": 1, "conditions": []})
    assert queue.taken() == [DETECTOR]


def test_a_changed_policy_and_a_model_whose_deletion_went_unseen_have_nodes_brought_up_to_date(
    nodes: NodeSightings, sightings: Sightings, queue: Queue
) -> None:
    nodes.edge_node(None, edge_node())
    queue.taken()
    sightings.policy("ADDED", {"name": "site", "generation": 1})
    assert queue.taken()[:2] == ["models", (N1, PLACING_SECONDS)]
    sightings.policy("MODIFIED", {"name": "site", "generation": 1})
    assert queue.taken() == []
    sightings.drop([SPEAKER])
    assert queue.taken() == ["models", (N1, PLACING_SECONDS), SPEAKER]
