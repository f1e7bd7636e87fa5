"""What the watches tell becomes keys, and only those that are needed."""

import asyncio
from typing import Any

import pytest

from edgemodel.controller.sightings import Key, Sightings
from edgemodel.controller.workqueue import WorkQueue

MODEL = Key("EdgeModel", "vision", "detector")
POLICY = Key("ModelTrustPolicy", "", "site")


class Queue(WorkQueue[Key]):
    """Remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Key] = []
        self.planned: list[Key] = []

    def add(self, key: Key) -> None:
        self.asked.append(key)

    def add_after(self, key: Key, seconds: float) -> None:
        self.planned.append(key)

    def taken(self) -> tuple[list[Key], list[Key]]:
        taken = self.asked, self.planned
        self.asked, self.planned = [], []
        return taken


def meta(name: str = "detector", *, generation: int = 1, version: str = "1", **more: Any) -> dict[str, Any]:
    return {"name": name, "generation": generation, "resourceVersion": version, **more}


def model(version: str = "1", **more: Any) -> dict[str, Any]:
    return meta(namespace="vision", version=version, **more)


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def sightings(queue: Queue) -> Sightings:
    return Sightings(queue)


@pytest.mark.parametrize("kind", [None, "ADDED", "MODIFIED", "DELETED"])
def test_any_news_of_a_model_makes_a_pass(sightings: Sightings, queue: Queue, kind: str | None) -> None:
    sightings.model(kind, model())
    assert queue.taken() == ([MODEL], [])


def test_a_policys_new_generation_makes_a_pass_of_every_model_its_status_none(
    sightings: Sightings, queue: Queue
) -> None:
    sightings.model("ADDED", model())
    queue.taken()
    sightings.policy("ADDED", meta("site"))
    assert queue.taken() == ([MODEL, POLICY], [])
    sightings.policy("MODIFIED", meta("site", version="2"))
    assert queue.taken() == ([], [])
    sightings.policy("MODIFIED", meta("site", generation=2, version="3"))
    assert queue.taken() == ([MODEL, POLICY], [])
    sightings.policy("DELETED", meta("site", generation=2, version="4"))
    assert queue.taken() == ([MODEL, POLICY], [])


def test_a_model_that_comes_changes_or_goes_has_the_policies_counted_anew(
    sightings: Sightings, queue: Queue
) -> None:
    sightings.policy(None, meta("site"))
    queue.taken()
    for kind, generation, counted in (
        ("ADDED", 1, 1),
        ("MODIFIED", 1, 0),
        ("MODIFIED", 2, 1),
        ("DELETED", 2, 1),
    ):
        sightings.model(kind, model(generation=generation))
        assert queue.taken() == ([MODEL], [POLICY] * counted)


@pytest.mark.parametrize(
    "child",
    [
        {"labels": {"edgemodel.io/model": "detector"}},
        {"ownerReferences": [{"kind": "EdgeModel", "name": "detector", "controller": True}]},
    ],
)
def test_news_of_a_child_makes_a_pass_of_its_model(
    sightings: Sightings, queue: Queue, child: dict[str, Any]
) -> None:
    sightings.child(model() | child)
    assert queue.taken() == ([], []), "its model is yet to be listed"
    sightings.model(None, model())
    queue.taken()
    sightings.child(model() | child)
    assert queue.taken() == ([MODEL], [])
    sightings.child(model() | {"ownerReferences": [{"kind": "ReplicaSet", "name": "detector"}]})
    assert queue.taken() == ([], [])


def test_what_was_listed_and_not_shown_is_behind(sightings: Sightings) -> None:
    sightings.model("ADDED", model(version="5"))
    assert sightings.behind({MODEL: "5"}) == frozenset()
    assert sightings.behind({MODEL: "6"}) == {(MODEL, "6")}
    other = Key("EdgeModel", "vision", "other")
    assert sightings.behind({other: "1"}) == {(other, "1")}


async def test_the_real_queue_takes_the_same_calls() -> None:
    queue: WorkQueue[Key] = WorkQueue()
    sightings = Sightings(queue)
    sightings.policy(None, meta("site"))
    sightings.model(None, model())
    assert len(queue) == 2
    await asyncio.wait_for(queue.stop(0.1), 1)
