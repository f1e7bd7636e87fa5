"""The rollout's machine, one sentence a case."""

from dataclasses import replace

import pytest

from edgemodel.api.v1alpha1 import Slots
from edgemodel.rollout.facts import Seen
from edgemodel.rollout.machine import Step
from tests.unit.rollout.versions import (
    BANNED,
    DELIVERED,
    FIRST,
    LOAD_FAILED,
    NO_IMAGE,
    NODES,
    ON_NODES,
    PAUSED,
    REPLACING,
    SERVING,
    STOP_FIRST,
    WAITING,
    WANTED,
    A,
    B,
    digest,
    slot,
    take,
    told,
    up,
)

CASES = {
    "the first version becomes candidate and is served as soon as it can be": (
        take(replace(WANTED, target=slot("a")), Slots()),
        "candidate a, run a=2, serve a",
    ),
    "without a target nothing is started": (take(replace(WANTED, target=None), Slots()), ""),
    "the first version is active once one pod answers": (
        take(replace(WANTED, target=slot("a")), FIRST, {"a": up(2, 1)}),
        "active a, run a=2, serve a",
    ),
    "the first version that cannot load stays: there is nothing to go back to": (
        take(replace(WANTED, target=slot("a")), FIRST, {"a": up(2, 0, LOAD_FAILED)}, after=3600),
        "candidate a, run a=2, serve a",
    ),
    "a first version that never answered gives way to a new target": (
        take(WANTED, FIRST, {"a": up(2, 0, LOAD_FAILED)}, selected="a"),
        "candidate b, run b=2, serve b, drain a",
    ),
    "a first version that answers is active before a new target is started": (
        take(WANTED, FIRST, {"a": up(2, 1)}, selected="a"),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "with no replicas wanted there is nothing to wait for": (
        take(replace(WANTED, target=slot("a"), replicas=0), FIRST, {"a": up(0)}),
        "active a, run a=0, serve a",
    ),
    "surge starts the candidate beside the active version": (
        take(WANTED, SERVING, {"a": up()}, selected="a"),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "surge does not promote while one replica is missing": (
        take(WANTED, REPLACING, {"a": up(), "b": up(2, 1)}, selected="a"),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "surge promotes when all replicas are ready, and the old version stays until the Service is switched": (
        take(WANTED, REPLACING, {"a": up(), "b": up()}, selected="a"),
        "active b, good a, run b=2, serve b, drain a",
    ),
    "the old version goes once the Service selects the new one and every node had time to follow": (
        take(WANTED, Slots(active=B, last_good=A), {"a": up(), "b": up()}, selected="b", after=3),
        "active b, good a, run b=2, serve b, remove a",
    ),
    "the old version stays for those who follow slowly": (
        take(WANTED, Slots(active=B, last_good=A), {"a": up(), "b": up()}, selected="b", after=2),
        "active b, good a, run b=2, serve b, drain a",
    ),
    "the old version stays while the Service selects it, however long": (
        take(WANTED, Slots(active=B, last_good=A), {"a": up(), "b": up()}, selected="a", after=99),
        "active b, good a, run b=2, serve b, drain a",
    ),
    "a candidate that cannot load is taken back at once": (
        take(WANTED, REPLACING, {"a": up(), "b": up(2, 1, LOAD_FAILED)}, selected="a"),
        "active a, run a=2, serve a, remove b, back b ModelLoadFailed",
    ),
    "a candidate that waits for an image is given time": (
        take(WANTED, REPLACING, {"a": up(), "b": up(2, 0, NO_IMAGE)}, selected="a", after=599),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "a candidate is taken back at its deadline": (
        take(WANTED, REPLACING, {"a": up(), "b": up(2, 0, NO_IMAGE)}, selected="a", after=600),
        "active a, run a=2, serve a, remove b, back b ProgressDeadlineExceeded",
    ),
    "a candidate that is ready at its deadline is promoted": (
        take(WANTED, REPLACING, {"a": up(), "b": up()}, selected="a", after=600),
        "active b, good a, run b=2, serve b, drain a",
    ),
    "a deadline of 0 never comes": (
        take(replace(WANTED, progress_deadline=0), REPLACING, {"a": up()}, after=10**6),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "a version that was taken back is not tried again": (
        take(WANTED, SERVING, {"a": up()}, rolled_back=BANNED, after=10**6),
        "active a, run a=2, serve a, back b ModelLoadFailed",
    ),
    "a change of the spec lifts the ban": (
        take(replace(WANTED, generation=2), SERVING, {"a": up()}, rolled_back=BANNED),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "the retry annotation lifts the ban": (
        take(replace(WANTED, retry="again"), SERVING, {"a": up()}, rolled_back=BANNED),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "a retry annotation that was there when the version failed lifts nothing": (
        take(
            replace(WANTED, retry="again"),
            SERVING,
            {"a": up()},
            rolled_back=BANNED.model_copy(update={"retry": "again"}),
        ),
        "active a, run a=2, serve a, back b ModelLoadFailed",
    ),
    "another target than the one taken back is tried, and the ban is remembered": (
        take(replace(WANTED, target=slot("c")), SERVING, {"a": up()}, rolled_back=BANNED),
        "active a, candidate c, run a=2, run c=2, serve a, back b ModelLoadFailed",
    ),
    "a new target replaces the candidate": (
        take(replace(WANTED, target=slot("c")), REPLACING, {"a": up(), "b": up(2, 1)}, selected="a"),
        "active a, candidate c, run a=2, run c=2, serve a, remove b",
    ),
    "a new target replaces a candidate that is ready": (
        take(replace(WANTED, target=slot("c")), REPLACING, {"a": up(), "b": up()}, selected="a"),
        "active a, candidate c, run a=2, run c=2, serve a, remove b",
    ),
    "a target that is the active version again drops the candidate": (
        take(replace(WANTED, target=slot("a")), REPLACING, {"a": up(), "b": up()}, selected="a"),
        "active a, run a=2, serve a, remove b",
    ),
    "a target that is not known leaves the candidate on its way": (
        take(replace(WANTED, target=None), REPLACING, {"a": up(), "b": up(2, 1)}, selected="a"),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "a refused target is not started": (
        take(replace(WANTED, refused=frozenset({digest("b")})), SERVING, {"a": up()}),
        "active a, run a=2, serve a",
    ),
    "a pause holds the start": (
        take(PAUSED, SERVING, {"a": up()}, selected="a"),
        "active a, run a=2, serve a, held",
    ),
    "a pause holds the first start": (take(PAUSED, Slots()), "held"),
    "a pause holds the promotion, past the deadline too": (
        take(PAUSED, REPLACING, {"a": up(), "b": up()}, selected="a", after=10**6),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "a pause takes back a candidate of which no pod exists yet": (
        take(PAUSED, REPLACING, {"a": up(), "b": up(0)}, selected="a"),
        "active a, run a=2, serve a, remove b, held",
    ),
    "a pause does not keep a candidate that cannot load": (
        take(PAUSED, REPLACING, {"a": up(), "b": up(2, 0, LOAD_FAILED)}, selected="a"),
        "active a, run a=2, serve a, remove b, back b ModelLoadFailed",
    ),
    "stop-first stops the active version before it starts the candidate": (
        take(STOP_FIRST, SERVING, {"a": up()}, selected="a"),
        "active a, candidate b, run a=0, run b=0, serve a",
    ),
    "stop-first waits for the last pod of the active version to be gone": (
        take(STOP_FIRST, REPLACING, {"a": up(1, 0, replicas=0), "b": up(0, replicas=0)}, selected="a"),
        "active a, candidate b, run a=0, run b=0, serve a",
    ),
    "stop-first starts the candidate when the active version is gone": (
        take(STOP_FIRST, REPLACING, {"a": up(0, replicas=0), "b": up(0, replicas=0)}, selected="a"),
        "active a, candidate b, run a=0, run b=2, serve a",
    ),
    "stop-first serves from the candidate's first pod on": (
        take(STOP_FIRST, REPLACING, {"a": up(0, replicas=0), "b": up(2, 1)}, selected="a"),
        "active a, candidate b, run a=0, run b=2, serve b",
    ),
    "stop-first brings the active version back when the candidate cannot load": (
        take(STOP_FIRST, REPLACING, {"a": up(0, replicas=0), "b": up(2, 0, LOAD_FAILED)}, selected="a"),
        "active a, run a=2, serve a, remove b, back b ModelLoadFailed",
    ),
    "stop-first promotes when all replicas are ready": (
        take(STOP_FIRST, REPLACING, {"a": up(0, replicas=0), "b": up()}, selected="b"),
        "active b, good a, run b=2, serve b, drain a",
    ),
    "a change to stop-first does not stop a candidate that runs": (
        take(STOP_FIRST, REPLACING, {"a": up(), "b": up(2, 1)}, selected="a"),
        "active a, candidate b, run a=0, run b=2, serve a",
    ),
    "a refused candidate is dropped": (
        take(
            replace(WANTED, target=None, refused=frozenset({digest("b")})),
            REPLACING,
            {"a": up(), "b": up(2, 1)},
            selected="a",
        ),
        "active a, run a=2, serve a, remove b",
    ),
    "a refused first version that answers goes on serving": (
        take(
            replace(WANTED, target=None, refused=frozenset({digest("a")})),
            FIRST,
            {"a": up(2, 1)},
            selected="a",
        ),
        "active a, run a=2, serve a",
    ),
    "a refused first version that does not answer is dropped": (
        take(
            replace(WANTED, target=None, refused=frozenset({digest("a")})),
            FIRST,
            {"a": up(2, 0)},
            selected="a",
        ),
        "remove a",
    ),
    "a refused active version goes on serving and does not grow": (
        take(
            replace(WANTED, target=None, replicas=5, refused=frozenset({digest("a")})), SERVING, {"a": up()}
        ),
        "active a, run a=2, serve a",
    ),
    "a refused active version may be made smaller": (
        take(
            replace(WANTED, target=None, replicas=0, refused=frozenset({digest("a")})), SERVING, {"a": up()}
        ),
        "active a, run a=0, serve a",
    ),
    "a refused active version whose Deployment is gone is not made again": (
        take(replace(WANTED, target=None, refused=frozenset({digest("a")})), SERVING),
        "active a, serve a",
    ),
    "an active version whose Deployment is gone is made again, whatever the registry says": (
        take(replace(WANTED, target=None), SERVING),
        "active a, run a=2, serve a",
    ),
    "a candidate that nodes do not have gets no Deployment": (
        take(NODES, SERVING, {"a": up()}, selected="a"),
        "active a, candidate b, run a=2, serve a, waiting",
    ),
    "a first version that nodes do not have gets no Deployment": (
        take(replace(NODES, target=slot("a")), Slots()),
        "candidate a, serve a, waiting",
    ),
    "a candidate that nodes have is started": (
        take(ON_NODES, WAITING, {"a": up()}, selected="a"),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "a target that nodes have already is started at once": (
        take(ON_NODES, SERVING, {"a": up()}, selected="a"),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "a candidate waits for its nodes for as long as it takes": (
        take(NODES, WAITING, {"a": up()}, selected="a", after=10**6),
        "active a, candidate b, run a=2, serve a, waiting",
    ),
    "a candidate that was delivered goes on when a node that lacks it joins": (
        take(NODES, DELIVERED, {"a": up(), "b": up(2, 1)}, selected="a"),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "a candidate that was delivered keeps its place though it has no pod yet": (
        take(NODES, DELIVERED, {"a": up()}, selected="a"),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "an active version that no node has goes on serving": (
        take(replace(NODES, target=slot("a")), SERVING, {"a": up()}, selected="a"),
        "active a, run a=2, serve a",
    ),
    "stop-first leaves the active version alone until nodes have the candidate": (
        take(replace(NODES, strategy="StopFirst"), WAITING, {"a": up()}, selected="a"),
        "active a, candidate b, run a=2, serve a, waiting",
    ),
    "stop-first stops the active version once nodes have the candidate": (
        take(replace(ON_NODES, strategy="StopFirst"), WAITING, {"a": up()}, selected="a"),
        "active a, candidate b, run a=0, run b=0, serve a",
    ),
    "no replicas promote no candidate that nodes do not have": (
        take(replace(NODES, replicas=0), WAITING, {"a": up(0)}, selected="a"),
        "active a, candidate b, run a=0, serve a, waiting",
    ),
    "no replicas promote no first version that nodes do not have": (
        take(replace(NODES, target=slot("a"), replicas=0), FIRST),
        "candidate a, serve a, waiting",
    ),
    "a pause lets nodes get a version and starts it not": (
        take(replace(ON_NODES, paused=True), SERVING, {"a": up()}, selected="a"),
        "active a, candidate b, run a=2, serve a, held, waiting",
    ),
    "a pause lets nodes get a first version and starts it not": (
        take(replace(ON_NODES, target=slot("b"), paused=True), Slots()),
        "candidate b, serve b, held, waiting",
    ),
    "a pause stops a delivered candidate of which no pod exists yet": (
        take(replace(ON_NODES, paused=True), DELIVERED, {"a": up(), "b": up(0)}, selected="a"),
        "active a, candidate b, run a=2, serve a, remove b, held, waiting",
    ),
    "a new target replaces a candidate that waits": (
        take(replace(NODES, target=slot("c")), WAITING, {"a": up()}, selected="a"),
        "active a, candidate c, run a=2, serve a, waiting",
    ),
    "a candidate that waits is dropped when it is refused": (
        take(replace(NODES, target=None, refused=frozenset({digest("b")})), WAITING, {"a": up()}),
        "active a, run a=2, serve a",
    ),
    "a candidate whose pods fetch for themselves goes on when nodes are to deliver": (
        take(NODES, WAITING, {"a": up(), "b": up(2, 1)}, selected="a"),
        "active a, candidate b, run a=2, run b=2, serve a",
    ),
    "a Deployment that belongs to no slot is removed": (
        take(replace(WANTED, target=None), SERVING, {"a": up(), "c": up()}, selected="a"),
        "active a, run a=2, serve a, remove c",
    ),
    "pods without a Deployment are nobody's to remove": (
        take(replace(WANTED, target=None), SERVING, {"a": up(), "c": Seen(pods=1)}, selected="a"),
        "active a, run a=2, serve a",
    ),
}


@pytest.mark.parametrize(("taken", "expected"), CASES.values(), ids=CASES.keys())
def test_step(taken: Step, expected: str) -> None:
    assert told(taken) == expected
