"""From objects to routes: which pods, which part, who may call; and that one broken object costs its own route only."""

import json
from typing import Any

import pytest

from edgemodel.gateway import kept
from edgemodel.gateway.routes import Access, Route, Server, read_routes
from tests.unit.gateway.objects import ONE, TWO, model, pod

TOKENS = {"bearerTokens": {"secretName": "callers"}}
BOTH = {**TOKENS, "clientCertificates": {"secretName": "authority"}}


def one(live: dict[str, Any], *pods: dict[str, Any], access: dict[str, str] | None = None) -> Route:
    read = read_routes([kept.model(live)], [kept.pod(it) for it in pods], access or {})
    assert read.problems == ()
    (route,) = read.routes
    return route


def names(servers: tuple[Server, ...]) -> list[str]:
    return [server.name for server in servers]


def test_pods_stand_where_their_version_does() -> None:
    route = one(
        model(candidate=TWO, weight=10), pod(1), pod(2, TWO), pod(3), pod(4, "3" * 64), pod(5, of="other")
    )
    assert names(route.active) == ["detector-1_10.42.0.1", "detector-3_10.42.0.3"]
    assert names(route.candidate) == ["detector-2_10.42.0.2"]
    assert route.weight == 10


def test_nobody_gets_to_a_first_version_before_it_is_active() -> None:
    route = one(model(active=None, candidate=TWO, weight=100), pod(1, TWO))
    assert (route.active, route.candidate, route.weight) == ((), (), 0)


@pytest.mark.parametrize(
    ("rollout", "ready", "percent"),
    [
        ({"weight": 0, "step": 1}, True, 20),
        ({"weight": 50, "step": 2}, True, 20),
        ({"weight": 0, "step": 0}, True, 0),  # its golden samples are not known yet
        ({"weight": 100, "step": 3}, True, 0),  # nothing is left to be copied
        ({"weight": 0, "step": 1}, False, 0),
    ],
)
def test_a_candidate_that_is_ready_gets_copies_until_it_gets_all_requests(
    rollout: dict[str, int], ready: bool, percent: int
) -> None:
    live = model(candidate=TWO, traffic={"shadow": {"percent": 20}})
    live["status"]["rollout"] = rollout
    route = one(live, pod(1), pod(2, TWO, ready=ready))
    assert (route.shadow_percent, route.shadow, route.candidate_digest) == (20, percent, f"sha256:{TWO}")
    assert one(model(traffic={"shadow": {"percent": 20}}), pod(1)).shadow == 0


def test_without_a_candidate_there_is_no_weight() -> None:
    assert one(model(weight=50)).weight == 0


@pytest.mark.parametrize(("told", "weight"), [(-5, 0), (0, 0), (1, 1), (100, 100), (700, 100)])
def test_a_weight_is_a_percentage(told: int, weight: int) -> None:
    assert one(model(candidate=TWO, weight=told)).weight == weight


@pytest.mark.parametrize(
    ("shown", "taking"),
    [({}, True), ({"ready": False}, False), ({"going": True}, False)],
    ids=["ready", "unready", "going"],
)
def test_only_a_ready_pod_that_stays_takes_requests(shown: dict[str, bool], taking: bool) -> None:
    assert [server.taking for server in one(model(), pod(1, **shown)).active] == [taking]


@pytest.mark.parametrize(
    "shown", [{"address": ""}, {"address": "x; bind *:80"}, {"phase": "Failed"}, {"phase": "Succeeded"}]
)
def test_a_pod_without_an_address_or_that_has_ended_is_none(shown: dict[str, str]) -> None:
    assert one(model(), pod(1, **shown)).active == ()


def test_a_pod_with_another_address_is_another_server() -> None:
    before, after = one(model(), pod(1)), one(model(), pod(1, address="10.42.0.99"))
    assert names(before.active) != names(after.active)


def test_a_model_without_a_port_or_that_is_going_has_no_route() -> None:
    going = model("going", port=20002)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert read_routes([model(port=None), kept.model(going)], [], {}).routes == ()


def test_of_two_models_at_one_port_the_older_has_it() -> None:
    read = read_routes(
        [model("b", made="2026-01-02T00:00:00Z"), model("c", made="2026-01-01T00:00:00Z")], [], {}
    )
    assert [route.key for route in read.routes] == ["vision/c"]
    assert read.problems == (("vision/b", "port 20001 is that of vision/c, which is older"),)


@pytest.mark.parametrize(
    "broken",
    [
        {"metadata": {"namespace": "vision", "name": "x"}, "spec": {}, "status": {"gatewayPort": 20009}},
        {
            "metadata": {"namespace": "vision", "name": "x y"},
            "spec": {"image": "r/m:1"},
            "status": {"gatewayPort": 20009},
        },
        {
            "metadata": {"namespace": "vision", "name": "x"},
            "spec": {"image": "r/m:1"},
            "status": {"gatewayPort": 99999},
        },
        {
            "metadata": {"namespace": "vision", "name": "x"},
            "spec": {"image": "r/m:1"},
            "status": {"gatewayPort": "a"},
        },
    ],
    ids=["no image", "no name", "no port of TCP", "no number"],
)
def test_what_makes_no_sense_costs_its_own_route_only(broken: dict[str, Any]) -> None:
    read = read_routes([kept.model(broken), kept.model(model())], [], {})
    assert [route.key for route in read.routes] == ["vision/detector"]
    assert len(read.problems) == 1


def entry(**told: Any) -> dict[str, str]:
    return {"vision.detector.json": json.dumps(told)}


@pytest.mark.parametrize(
    ("asked", "told", "access"),
    [
        ({}, {}, None),
        (TOKENS, {}, Access()),
        (TOKENS, entry(tokens=[]), Access(tokens=())),
        (TOKENS, entry(tokens=[ONE]), Access(tokens=(ONE,))),
        (TOKENS, entry(tokens=["secret"]), Access()),
        (TOKENS, entry(tokens=ONE), Access()),
        (TOKENS, {"vision.detector.json": "["}, Access()),
        (TOKENS, {"vision.detector.json": "[]"}, Access()),
        (BOTH, entry(tokens=[ONE]), Access()),
        (BOTH, entry(tokens=[ONE], clientCA="pem"), Access(tokens=(ONE,), client_ca="pem")),
    ],
)
def test_who_may_call_is_what_the_operator_says_or_nobody(
    asked: dict[str, Any], told: dict[str, str], access: Access | None
) -> None:
    assert one(model(access=asked) if asked else model(), access=told).access == access


def test_a_status_that_ticks_is_no_change() -> None:
    before, after = model(candidate=TWO, weight=10), model(candidate=TWO, weight=10)
    after["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    after["status"]["rollout"]["gate"] = [{"name": "errors"}]
    assert kept.model(before) == kept.model(after)
    busy = pod(1)
    busy["status"]["conditions"].append({"type": "ContainersReady", "status": "True", "lastProbeTime": "x"})
    busy["status"]["containerStatuses"] = [{"restartCount": 4}]
    assert kept.pod(pod(1)) == kept.pod(busy)


@pytest.mark.parametrize(
    "junk", [{}, {"metadata": 1, "spec": [], "status": "x"}, {"spec": {"containers": 3}}]
)
def test_junk_is_read_as_nothing(junk: dict[str, Any]) -> None:
    assert read_routes([kept.model(junk)], [kept.pod(junk)], {}).routes == ()
