"""Whole passes while a candidate is judged: weights, gate, golden samples, orders, what holds it; one sentence a case."""

from datetime import timedelta
from typing import Any

import pytest

from edgemodel.api.v1alpha1 import EdgeModelStatus
from edgemodel.reconcile.observed import GatewayPod
from edgemodel.rollout.evidence import CandidateEvidence, Counts, GoldenResult, Totals
from tests.unit.reconcile.world import DIGESTS, LOADING, READY, World, judged, server_ended

GATE = {"window": "30s", "goldenSamples": "IfPresent"}
STEPS = [{"weight": 10, "pause": "1m"}, {"weight": 50, "pause": "1m"}]
SURGE: dict[str, Any] = {"gate": GATE}
CANARY: dict[str, Any] = {"strategy": "Canary", "steps": STEPS, "gate": GATE}
BOUNDS = (0.01, 0.1, 1.0)


def answers(requests: int, errors: int = 0, *, slow: int = 0) -> Counts:
    """Return so many requests in a second each of 100, of which some fail and some take up to a second."""
    fast = requests - slow
    return Counts(requests, errors, requests, BOUNDS, (fast, fast, requests), requests / 100)


def see(
    world: World, letter: str, mine: Counts, *, theirs: Counts | None = None, golden: str = "Pass"
) -> World:
    """Let the operator know what a candidate answered and what its pods said of golden samples."""
    ready = [pod["metadata"]["name"] for pod in world.of(letter) if pod["status"] == READY]
    told = "max |difference| 0.3" if golden == "Fail" else ""
    world.evidence = CandidateEvidence(
        digest=str(DIGESTS[letter]),
        candidate=Totals(rounds=(mine,)),
        active=Totals(rounds=(theirs,), concurrent=True) if theirs is not None else None,
        golden=tuple(GoldenResult(name, golden, told) for name in ready) if golden else (),  # type: ignore[arg-type]
        since=world.now - timedelta(days=1),
    )
    return world


def serving(*, gateway: bool = True, **spec: Any) -> World:
    """Return a world (with a gateway) in which version A serves, and version B is the target."""
    world = World("A", **spec)
    if gateway:
        world.gateway = (GatewayPod("gateway-1", "uid-g", "10.0.0.9", "n1", ready=True),)
        world.gateway_port = 20000
    world.settle().ready("A")
    see(world, "A", Counts()).settle()
    world.evidence = None
    assert world.condition("Ready") == ("True", "Serving")
    world.told()
    world.target = judged("B")
    return world.settle()


def begun(**spec: Any) -> World:
    """Return such a world in which B has just got its first requests."""
    world = serving(**spec).ready("B")
    see(world, "B", Counts()).settle()
    world.told()
    return world


def weight(world: World) -> int | None:
    rollout = world.model.status.rollout
    return None if rollout is None else rollout.weight


def told(world: World) -> list[str]:
    return [reason for reason in world.told() if reason not in ("ArtifactPulled", "ModelLoaded", "Promoted")]


# Canary


def test_a_canary_reads_like_a_story() -> None:
    world = serving(rollout=CANARY)
    assert weight(world) == 0
    assert world.condition("Progressing") == ("True", "Replacing")
    see(world.ready("B"), "B", Counts()).settle()
    story = [(weight(world), world.condition("Progressing"), world.slots())]
    assert "gets 10 % of the requests" in world.message("Progressing")
    assert world.last.requeue_after == 60
    for after in (60, 60, 30):
        see(world, "B", answers(400), theirs=answers(4000)).turn()
        world.later(after).turn()
        see(world, "B", Counts())
        world.turn()
        story.append((weight(world), world.condition("Progressing"), world.slots()))
    both, done = {"active": "A", "candidate": "B"}, {"active": "B", "last_good": "A"}
    assert story == [
        (10, ("True", "Canary"), both),
        (50, ("True", "Canary"), both),
        (100, ("True", "Promoting"), both),
        (None, ("True", "Promoting"), done),
    ]
    assert [one for one in world.told() if one not in ("ArtifactPulled", "ModelLoaded")] == [
        "ArtifactResolved",
        "ArtifactVerified",
        "RolloutStarted",
        "WeightSet",
        "GatePassed",
        "WeightSet",
        "GatePassed",
        "WeightSet",
        "GatePassed",
        "Promoted",
    ]
    world.later(5).settle()
    assert world.condition("Progressing") == ("False", "Complete")
    assert world.sizes() == {"B": 1}


def test_a_canary_that_fails_requests_is_back_at_nothing_in_one_pass() -> None:
    world = begun(rollout=CANARY)
    see(world, "B", answers(1000, 80), theirs=answers(9000)).turn()
    assert (weight(world), world.slots()) == (None, {"active": "A"})
    assert world.condition("RolledBack") == ("True", "GateFailed")
    assert world.condition("Progressing") == ("False", "GateFailed")
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("ModelLoaded") == ("True", "Loaded")
    assert "errors: 8.00 % of 1000" in world.message("RolledBack")
    assert told(world) == ["GateFailed", "RolledBack"]
    world.later(2).settle()
    assert world.sizes() == {"A": 1}
    world.later(10**6).settle()
    assert (world.slots(), told(world)) == ({"active": "A"}, [])


def test_a_quiet_site_holds_a_canary_and_says_so() -> None:
    world = begun(rollout=CANARY)
    world.later(10_000).settle()
    assert weight(world) == 10
    assert world.condition("Progressing") == ("False", "GateInconclusive")
    assert "edgemodel.io/promote" in world.message("Progressing")
    assert world.last.requeue_after is None
    assert told(world) == ["GateInconclusive"]
    world.annotate(promote=DIGESTS["B"].short)
    world.turn()
    assert world.slots() == {"active": "B", "last_good": "A"}


def test_numbers_of_a_gate_are_written_when_they_say_something_new() -> None:
    world = begun(rollout=CANARY)
    see(world, "B", answers(400), theirs=answers(4000)).settle()
    rollout = world.model.status.rollout
    assert rollout is not None
    assert {one.name: one.result for one in rollout.gate}["errors"] == "Pass"
    for more in (401, 600, 799):
        see(world.later(1), "B", answers(more), theirs=answers(10 * more))
        assert world.turn().status is None
    see(world.later(1), "B", answers(800), theirs=answers(8000))
    assert world.turn().status is not None


@pytest.mark.parametrize("missing", ["gateway", "port"])
def test_a_canary_without_a_gateway_is_refused_and_the_old_version_serves(missing: str) -> None:
    world = World("A", rollout={**CANARY, "gate": {"goldenSamples": "Ignore"}}).settle().ready("A").settle()
    if missing == "port":
        world.gateway = ()
    world.target = judged("B")
    world.settle()
    assert (world.sizes(), world.slots()) == ({"A": 1}, {"active": "A"})
    assert world.condition("Progressing") == ("False", "GatewayMissing")
    assert world.condition("Stalled") == ("True", "GatewayMissing")
    assert "Surge" in world.message("Stalled")
    world.edit(rollout={"strategy": "Surge"})
    world.settle().ready("B").settle()
    assert world.slots() == {"active": "B", "last_good": "A"}


# Surge and StopFirst


def test_surge_switches_at_once_and_keeps_the_old_version_until_its_window_has_passed() -> None:
    world = serving(gateway=False, rollout=SURGE).ready("B")
    see(world, "B", Counts()).settle()
    assert (weight(world), world.selected(), world.slots()) == (
        100,
        "B",
        {"active": "A", "candidate": "B"},
    )
    assert world.condition("Progressing") == ("True", "Promoting")
    assert (world.sizes(), world.last.requeue_after) == ({"A": 1, "B": 1}, 30)
    world.later(30).turn()
    assert (weight(world), world.slots()) == (None, {"active": "B", "last_good": "A"})


def test_surge_keeps_the_old_version_while_the_new_one_looks_worse() -> None:
    world = serving(gateway=False, rollout=SURGE).ready("B")
    see(world, "B", Counts()).settle()
    see(world.later(60), "B", answers(100, 2)).settle()
    assert (weight(world), world.slots()) == (100, {"active": "A", "candidate": "B"})
    assert world.condition("Progressing") == ("False", "GateInconclusive")
    assert "(errors" in world.message("Progressing")
    see(world.later(60), "B", answers(1000, 2)).settle()
    assert world.slots() == {"active": "B", "last_good": "A"}


def test_surge_goes_back_in_one_pass_and_the_new_pods_go_after_the_switch() -> None:
    world = serving(gateway=False, rollout=SURGE).ready("B")
    see(world, "B", Counts()).settle()
    see(world, "B", answers(500, 50)).turn()
    assert (world.selected(), world.sizes()) == ("A", {"A": 1, "B": 1})
    assert world.condition("Ready") == ("True", "Serving")
    world.settle()
    assert world.sizes() == {"A": 1}
    assert world.condition("RolledBack") == ("True", "GateFailed")


def test_stop_first_serves_from_the_new_version_and_is_promoted_when_the_window_has_passed() -> None:
    world = serving(gateway=False, rollout={**SURGE, "strategy": "StopFirst"})
    world.settle().ready("B")
    see(world, "B", Counts()).settle()
    assert (world.sizes(), world.selected(), weight(world)) == ({"A": 0, "B": 1}, "B", 100)
    assert world.condition("Ready") == ("True", "Serving")
    world.later(30).settle()
    assert world.slots() == {"active": "B", "last_good": "A"}


# Golden samples


@pytest.mark.parametrize("rollout", [SURGE, CANARY], ids=["surge", "canary"])
def test_a_new_version_that_answers_wrongly_gets_no_request(rollout: dict[str, Any]) -> None:
    world = serving(rollout=rollout)
    world.ready("B").turn()
    assert (weight(world), world.condition("Ready")) == (0, ("True", "Serving"))
    see(world, "B", Counts(), golden="Fail").turn()
    assert world.slots() == {"active": "A"}
    assert world.condition("RolledBack") == ("True", "GoldenSamplesFailed")
    assert world.condition("ModelLoaded") == ("False", "GoldenSamplesFailed")
    assert "difference" in world.message("RolledBack")
    assert [one for one in told(world) if one.startswith(("Gate", "Roll", "Weight"))] == [
        "RolloutStarted",
        "GateFailed",
        "RolledBack",
    ]


def test_a_first_version_takes_requests_only_when_its_golden_samples_are_known() -> None:
    world = World("A", rollout=SURGE).settle()
    service = world.children["Service", "detector"]
    assert service["spec"].get("selector") in (None, {})
    world.ready("A").turn()
    assert world.condition("Ready") == ("False", "Starting")
    assert "golden samples" in world.message("Ready")
    assert world.last.requeue_after == 1
    see(world, "A", Counts()).turn()
    assert (world.selected(), world.slots()) == ("A", {"active": "A"})
    assert world.condition("Ready") == ("True", "Serving")


def test_a_first_version_that_answers_wrongly_serves_nobody_and_says_why() -> None:
    world = World("A", rollout=SURGE).settle().ready("A")
    see(world, "A", Counts(), golden="Fail").settle()
    assert world.slots() == {"candidate": "A"}
    for kind in ("Ready", "ModelLoaded", "Progressing"):
        assert world.condition(kind) == ("False", "GoldenSamplesFailed")
    assert world.children["Service", "detector"]["spec"].get("selector") in (None, {})
    world.target = judged("B")
    world.settle().ready("B")
    see(world, "B", Counts()).settle()
    assert world.slots() == {"active": "B"}


# Orders and holds


def test_an_order_to_roll_back_brings_the_last_good_version_back() -> None:
    world = begun(rollout=SURGE)
    world.later(30).settle().later(5).settle().told()
    assert (world.sizes(), world.slots()) == ({"B": 1}, {"active": "B", "last_good": "A"})
    world.annotate(rollback=str(DIGESTS["B"]))
    world.settle()
    assert world.sizes() == {"A": 1, "B": 1}
    assert world.condition("Ready") == ("True", "Serving")
    world.ready("A").settle().later(5).settle()
    assert (world.sizes(), world.slots()) == ({"A": 1}, {"active": "A"})
    assert world.condition("RolledBack") == ("True", "Manual")
    assert world.condition("Progressing") == ("False", "Manual")
    assert "edgemodel.io/rollback" in world.message("RolledBack")
    world.annotate(retry="1")
    world.settle()
    assert world.slots() == {"active": "A", "candidate": "B"}


def test_a_window_holds_a_new_version_until_it_opens() -> None:
    window = {"activate": {"schedule": "0 2 * * *", "duration": "2h"}}
    world = serving(rollout={**SURGE, "window": window})
    assert (world.sizes(), world.slots()) == ({"A": 1}, {"active": "A"})
    assert world.condition("Progressing") == ("False", "WaitingForWindow")
    assert "2026-01-01T02:00Z" in world.message("Progressing")
    assert world.last.requeue_after == 7200
    world.later(7200).settle()
    assert world.slots() == {"active": "A", "candidate": "B"}
    world.later(7200).ready("B")
    see(world, "B", Counts()).settle()
    assert weight(world) == 100


def test_a_window_that_never_comes_waits_for_a_person() -> None:
    window = {"activate": {"schedule": "0 2 30 2 *", "duration": "2h"}}
    world = serving(rollout={**SURGE, "window": window})
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert world.slots() == {"active": "A"}


def test_a_first_version_does_not_wait_for_a_window() -> None:
    window = {"activate": {"schedule": "0 2 * * *", "duration": "2h"}}
    assert World("A", rollout={"window": window}).settle().sizes() == {"A": 1}


def test_a_restarted_operator_goes_on_with_a_canary_and_does_not_believe_its_own_silence() -> None:
    world = begun(rollout={**CANARY, "gate": {**GATE, "onNoData": "Proceed"}})
    world.evidence = None
    world.later(3600).turn()
    assert weight(world) == 10
    assert world.last.requeue_after == 1
    see(world, "B", answers(400), theirs=answers(4000)).turn()
    assert weight(world) == 50


def test_a_status_of_an_earlier_release_goes_on() -> None:
    world = serving(rollout=SURGE)
    known = world.model.status.model_dump(by_alias=True)
    del known["rollout"]
    world.model = world.model.model_copy(update={"status": EdgeModelStatus.model_validate(known)})
    see(world.ready("B"), "B", Counts()).settle()
    assert weight(world) == 100


def test_a_candidate_that_crashes_under_load_is_taken_back_at_any_step() -> None:
    world = begun(rollout=CANARY, replicas=2)
    world.report("B", server_ended("boom", restarts=2), 1).turn()
    assert world.slots() == {"active": "A"}
    assert world.condition("RolledBack") == ("True", "LoadFailed")


def test_a_candidate_that_loses_a_pod_for_a_while_keeps_its_step() -> None:
    world = begun(rollout=CANARY, replicas=2)
    world.later(10).report("B", LOADING, 1).settle()
    assert weight(world) == 10
    world.later(300).ready("B")
    see(world, "B", answers(400), theirs=answers(4000)).settle()
    assert (weight(world), world.last.requeue_after) == (10, 50)
