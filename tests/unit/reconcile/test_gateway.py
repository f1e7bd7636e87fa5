"""Where the model's Service leads: by the gateway, by pods, to nobody, and from one to the other without a gap."""

from typing import Any

import pytest

from edgemodel.reconcile.decide import LOOK_AGAIN_SECONDS
from tests.unit.reconcile.gateway_world import MIRRORED, OF_SELECTOR, PORT, GatewayWorld

TOKENS = {"bearerTokens": {"secretName": "callers"}}
OURS = "detector-gateway"


def served(*, gateway: bool = True, **spec: Any) -> GatewayWorld:
    """Return a world in which version A answers, through the gateway if there is one."""
    world = GatewayWorld("A", gateway=gateway, **spec)
    if gateway:
        world.add_gateway()
    world.turn()
    world.ready("A")
    world.settle()
    world.gaps.clear()
    return world


def test_a_service_leads_to_the_gateways_pods_at_the_models_own_port() -> None:
    world = served()
    assert not world.selects()
    assert world.slice_names() == {OURS}
    found = world.children["EndpointSlice", OURS]
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "detector"
    assert found["ports"] == [{"name": "http", "port": PORT, "protocol": "TCP"}]
    assert [one["addresses"] for one in found["endpoints"]] == [["10.42.0.9"]]
    assert world.children["Service", "detector"]["spec"]["ports"][0]["name"] == "http"
    assert world.model.status.gateway_port == PORT
    assert world.condition("Ready") == ("True", "Serving")


def test_pods_of_the_gateway_are_followed() -> None:
    world = served().add_gateway("gw-2", "10.42.1.9")
    world.settle()
    assert world.endpoints() == {"10.42.0.9", "10.42.1.9"}
    world.change_gateway("gw-1", going=True)
    world.settle()
    assert world.endpoints() == {"10.42.1.9"}
    assert world.gaps == []


def test_the_last_one_that_is_going_still_takes_requests() -> None:
    world = served().change_gateway(going=True)
    world.settle()
    assert world.endpoints() == {"10.42.0.9"}
    (one,) = world.children["EndpointSlice", OURS]["endpoints"]
    assert one["conditions"] == {"ready": False, "serving": True, "terminating": True}


def test_without_a_gateway_pod_that_answers_a_model_is_not_ready_however_well_its_pods_do() -> None:
    world = served().change_gateway(ready=False)
    world.settle()
    assert world.condition("Ready") == ("False", "GatewayMissing")
    assert world.endpoints() == set()
    world.change_gateway(ready=True)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_model_that_comes_before_any_gateway_pod_waits_for_one() -> None:
    world = GatewayWorld("A")
    world.turn()
    world.ready("A")
    world.settle()
    assert not world.selects()
    assert world.slice_names() == {OURS}
    assert world.condition("Ready") == ("False", "GatewayMissing")
    world.add_gateway()
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_live_service_is_turned_to_the_gateway_without_a_gap_and_nothing_is_left_behind() -> None:
    world = served(gateway=False)
    assert world.selects()
    assert world.slice_names() == {OF_SELECTOR}
    world.switch(on=True).add_gateway(listening=False)
    decision = world.turn()
    assert world.selects(), "nothing answers yet at the model's port"
    assert decision.requeue_after == LOOK_AGAIN_SECONDS
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Degraded") == ("True", "GatewayMissing")
    world.change_gateway(listening=True)
    world.settle()
    assert not world.selects()
    assert world.slice_names() == {OURS}
    assert ("Endpoints", "detector") not in world.children
    assert world.condition("Degraded")[0] == "False"
    assert world.gaps == []


def test_a_live_service_is_turned_to_its_pods_without_a_gap() -> None:
    world = served()
    world.switch(on=False)
    world.turn()
    assert world.selects()
    assert OURS in world.slice_names(), "until a slice of pods names one that answers"
    world.settle()
    assert world.slice_names() == {OF_SELECTOR}
    assert world.model.status.gateway_port == PORT, "a gateway that drains goes by it"
    assert world.gaps == []


def test_a_slice_of_ours_waits_for_no_pods_that_are_not_there() -> None:
    world = served()
    world.report("A", {"phase": "Pending"})
    world.switch(on=False)
    world.settle()
    assert world.slice_names() == {OF_SELECTOR}


@pytest.mark.parametrize("cut", range(6))
def test_an_operator_that_dies_between_two_writes_of_a_turn_is_continued(cut: int) -> None:
    """Each pass writes only the first ``cut`` of what it wants, once; then passes are whole again."""
    world = served(gateway=False)
    world.switch(on=True).add_gateway()
    decision = world.decide()
    for child in decision.apply[:cut]:
        world._apply(dict(child))
    world._control_slices()
    world.settle()
    assert world.slice_names() == {OURS}
    assert not world.selects()
    assert world.gaps == []


def test_a_selector_that_somebody_sets_is_taken_away() -> None:
    world = served()
    world.children["Service", "detector"]["spec"]["selector"] = {"app": "mine"}
    world.settle()
    assert not world.selects()


def test_while_all_gateway_pods_are_silent_a_service_that_leads_to_pods_stays_with_them() -> None:
    world = served(gateway=False)
    world.switch(on=True)
    world.settle()
    assert world.selects()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.gaps == []


def test_the_version_before_goes_only_once_the_gateway_was_shown_the_one_that_serves() -> None:
    world = served()
    world.target = GatewayWorld("B").target
    world.turn()
    world.ready("B")
    for _ in range(12):
        before = world.model.status.slots.active
        world.turn()
        world.ready("B")
        shown = world.model.status.slots.active
        assert before is not None
        assert shown is not None
        if shown.digest != before.digest:
            break
        world.later(10)
    assert world.slots()["active"] == "B"
    assert world.sizes() == {"A": 1, "B": 1}
    world.settle()
    assert world.sizes() == {"B": 1}


@pytest.mark.parametrize("gateway", [True, False])
def test_where_only_some_may_call_nothing_leads_past_the_gateway(gateway: bool) -> None:
    world = served(gateway=gateway, access=TOKENS)
    assert not world.selects()
    if gateway:
        assert world.endpoints() == {"10.42.0.9"}
        assert world.condition("Ready") == ("True", "Serving")
    else:
        assert world.endpoints() == set()
        assert world.condition("Ready") == ("False", "GatewayMissing")


def test_access_that_is_asked_for_later_takes_the_service_from_the_pods_at_once() -> None:
    world = served(gateway=False)
    world.edit(access=TOKENS)
    world.settle()
    assert world.endpoints() == set()
    assert world.slice_names() == set()
    assert ("Endpoints", "detector") not in world.children
    world.switch(on=True).add_gateway(listening=False)
    world.settle()
    assert world.endpoints() == {"10.42.0.9"}


def test_turning_the_gateway_off_opens_no_model_that_only_some_may_call() -> None:
    world = served(access=TOKENS)
    world.switch(on=False)
    world.settle()
    assert world.endpoints() == set()
    assert not world.selects()


def test_a_model_whose_secret_is_missing_says_that_nobody_is_let_in() -> None:
    world = served(access=TOKENS)
    world.closed = "Secret callers is missing."
    world.settle()
    assert world.condition("Ready") == ("False", "AccessClosed")
    assert "Secret callers is missing" in world.message("Ready")
    assert world.endpoints() == {"10.42.0.9"}, "the gateway it is that refuses"


def test_a_service_of_somebody_else_gets_no_slice() -> None:
    world = GatewayWorld("A").add_gateway()
    world.conflicts = ("Service/detector",)
    world.turn()
    world.settle()
    assert world.slice_names() == set()


def test_a_suspended_model_goes_on_being_reached() -> None:
    world = served()
    world.edit(suspend=True)
    world.settle()
    world.add_gateway("gw-2", "10.42.1.9").change_gateway("gw-1", going=True)
    world.settle()
    assert world.endpoints() == {"10.42.1.9"}
    assert world.condition("Ready") == ("True", "Suspended")


def test_addresses_of_the_other_family_get_a_slice_of_their_own() -> None:
    world = served().change_gateway(address="fd00::9")
    world.settle()
    assert world.slice_names() == {f"{OURS}-v6"}
    assert world.children["EndpointSlice", f"{OURS}-v6"]["addressType"] == "IPv6"
    assert world.endpoints() == {"fd00::9"}


def test_a_world_at_rest_is_written_nothing() -> None:
    world = served()
    decision = world.turn()
    assert (decision.apply, decision.delete, decision.status) == ((), (), None)


def test_what_the_mirror_made_goes_by_the_endpoints_it_was_made_from() -> None:
    world = served(gateway=False)
    world.switch(on=True).add_gateway()
    world.turn()
    assert {OURS, OF_SELECTOR, MIRRORED} == world.slice_names()
    gone = {(ref.kind, ref.name) for ref in world.decide().delete}
    assert gone == {("EndpointSlice", OF_SELECTOR), ("Endpoints", "detector")}


def test_without_a_port_the_service_stays_with_its_pods() -> None:
    world = GatewayWorld("A").add_gateway()
    world.port = None
    world.turn()
    world.ready("A")
    world.settle()
    assert world.selects()
    assert world.condition("Degraded") == ("True", "GatewayMissing")
