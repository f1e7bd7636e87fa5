"""What HAProxy is told when pods and weights change: in an order in which no request goes wrong."""

import re
from dataclasses import replace

from edgemodel.gateway.changes import apart_from_shapes, changes, settled
from edgemodel.gateway.configuration import Place
from edgemodel.gateway.routes import Route, Server

A, B, C = (Server(f"pod-{letter}", f"10.42.0.{number}", 8080) for number, letter in enumerate("abc", 1))
ROUTE = Route("vision", "detector", 20001, active=(A,), candidate=(B,), weight=10)
PLACE = Place("/state")


def told(old: Route, new: Route) -> list[str]:
    found = changes([old], [new], PLACE)
    texts = [re.split(" proto | check ", command.text)[0] for command in found if not command.tidying]
    assert all(command.text.startswith("del server ") for command in found if command.tidying)
    assert [command.tidying for command in found] == sorted(command.tidying for command in found)
    return texts


def test_nothing_changed_is_nothing_to_say() -> None:
    assert changes([ROUTE], [ROUTE], PLACE) == ()


def test_a_pod_that_came_is_added_and_stands_by_for_the_candidate() -> None:
    assert told(ROUTE, replace(ROUTE, active=(A, C))) == [
        "add server vision.detector.active/pod-c 10.42.0.3:8080",
        "enable health vision.detector.active/pod-c",
        "enable server vision.detector.active/pod-c",
        "add server vision.detector.candidate/spare-pod-c 10.42.0.3:8080",
        "enable health vision.detector.candidate/spare-pod-c",
        "enable server vision.detector.candidate/spare-pod-c",
        "add server vision.detector.active.grpc/pod-c 10.42.0.3:8080",
        "enable health vision.detector.active.grpc/pod-c",
        "enable server vision.detector.active.grpc/pod-c",
        "add server vision.detector.candidate.grpc/spare-pod-c 10.42.0.3:8080",
        "enable health vision.detector.candidate.grpc/spare-pod-c",
        "enable server vision.detector.candidate.grpc/spare-pod-c",
    ]


def test_the_same_pod_is_a_server_of_either_protocol() -> None:
    texts = [command.text for command in changes([ROUTE], [replace(ROUTE, active=(A, C))], PLACE)]
    added = [text for text in texts if text.startswith("add server ")]
    assert [" proto h2 " in text for text in added] == [False, False, True, True]
    assert [text.endswith(" backup") for text in added] == [False, True, False, True]


def test_a_pod_that_is_going_gets_weight_0_and_one_that_is_back_gets_all_of_it() -> None:
    going = replace(ROUTE, active=(replace(A, taking=False),))
    names = ("active/pod-a", "candidate/spare-pod-a", "active.grpc/pod-a", "candidate.grpc/spare-pod-a")
    weights = [f"set weight vision.detector.{name} " for name in names]
    assert told(ROUTE, going) == [f"{text}0" for text in weights]
    assert told(going, ROUTE) == [f"{text}64" for text in weights]


def test_a_weight_is_one_command() -> None:
    assert told(ROUTE, replace(ROUTE, weight=50)) == ["set map /state/weights.map vision.detector 50"]


def test_in_a_promotion_the_old_version_leaves_before_the_weight_falls() -> None:
    texts = told(replace(ROUTE, weight=100), Route("vision", "detector", 20001, active=(B,)))
    order = [
        "enable server vision.detector.active/pod-b",
        "set server vision.detector.active/pod-a state maint",
        "set server vision.detector.active.grpc/pod-a state maint",
        "set map /state/weights.map vision.detector 0",
        "set server vision.detector.candidate/pod-b state maint",
        "set server vision.detector.candidate.grpc/pod-b state maint",
    ]
    assert [text for text in texts if text in order] == order


def test_in_a_rollback_the_weight_falls_before_the_candidate_leaves() -> None:
    assert told(ROUTE, replace(ROUTE, candidate=(), weight=0)) == [
        "set map /state/weights.map vision.detector 0",
        "set server vision.detector.candidate/pod-b state maint",
        "set server vision.detector.candidate.grpc/pod-b state maint",
    ]


def test_what_needs_a_new_configuration_stays_as_it_is_meanwhile() -> None:
    other = Route("vision", "other", 20002)
    new = (
        replace(ROUTE, sticky=True, weight=90),
        replace(other, active=(C,)),
        Route("vision", "third", 20003),
    )
    assert apart_from_shapes((ROUTE, other), new) == (ROUTE, replace(other, active=(C,)))
    assert apart_from_shapes((ROUTE, other), ()) == (ROUTE, other)


def test_a_pod_that_was_never_ready_is_not_kept_and_one_that_was_is() -> None:
    unready = replace(C, taking=False)
    new = replace(ROUTE, active=(A, unready))
    assert settled([ROUTE], [new]) == (ROUTE,)
    assert settled([replace(ROUTE, active=(A, C))], [new]) == (new,)
    assert settled([], [new]) == (ROUTE,)


def test_how_many_requests_are_copied_is_a_matter_of_the_running_worker() -> None:
    copied = replace(ROUTE, shadow_percent=20)
    assert apart_from_shapes([ROUTE], [copied]) == (ROUTE,)  # the backend for it needs a reload
    now = replace(copied, shadow=20, candidate_digest="sha256:aa")
    assert apart_from_shapes([copied], [now]) == (now,)
    assert told(copied, now) == ["set map /state/shadows.map vision.detector 20"]
