"""Whole passes in which trust policies refuse, warn or are mended, one sentence a case."""

import pytest

from edgemodel.api.conditions import Reason
from tests.unit.reconcile.world import (
    UNREACHABLE,
    UNSIGNED,
    World,
    judged,
    kinds,
    serving,
)


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        (Reason.SIGNATURE_MISSING, "SignatureRejected"),
        (Reason.KEY_UNKNOWN, "SignatureRejected"),
        (Reason.DIGEST_MISMATCH, "SignatureRejected"),
        (Reason.NO_MATCHING_POLICY, "SignatureRejected"),
        (Reason.DOWNGRADE_REFUSED, "DowngradeRefused"),
    ],
)
def test_a_refused_new_version_changes_nothing_but_status(reason: Reason, event: str) -> None:
    world = serving()
    world.target = judged("B", refusal=(reason, "it does not pass"))
    assert world.turn().apply == ()
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("ArtifactVerified") == ("False", reason)
    assert world.condition("Progressing") == ("False", "PolicyRefused")
    assert world.condition("Stalled") == ("True", "PolicyRefused")
    assert "Version 1.1.0 (sha256:559aead08264) goes on serving." in world.message("ArtifactVerified")
    assert world.told() == ["ArtifactResolved", event]
    world.later(3600).settle()
    assert world.told() == []


def test_warnings_of_policies_are_told() -> None:
    world = World(judged("A", warnings=("policy lab: no signature",))).settle()
    assert world.condition("ArtifactVerified") == ("True", "Verified")
    assert "Policy lab: no signature." in world.message("ArtifactVerified")


@pytest.mark.parametrize("also_target", [True, False], ids=["it is the target", "another is the target"])
def test_an_active_version_that_policies_refuse_now_goes_on_serving_and_is_not_started_again(
    also_target: bool,
) -> None:
    world = serving(replicas=2)
    refused = judged("A", refusal=(Reason.KEY_REVOKED, "key release was revoked"))
    if also_target:
        world.target = refused
    else:
        world.active, world.target = refused, UNREACHABLE
    world.config = {"policies.json": '["today"]'}
    assert kinds(world.turn()) == ["ConfigMap"]
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Degraded") == ("True", "PolicyRefused")
    assert "key release was revoked" in world.message("Degraded").lower()

    world.edit(replicas=4, podTemplate={"labels": {"new": "label"}})
    world.settle()
    assert world.sizes() == {"A": 2}
    assert "Deployment" not in kinds(world.last)
    world.edit(replicas=1)
    world.settle()
    assert world.sizes() == {"A": 1}

    del world.children["Deployment", "detector-559aead0"]
    world.settle().settle()
    assert world.sizes() == {}
    assert world.condition("Ready") == ("False", "KeyRevoked")
    assert "none is started" in world.message("Ready")


def test_a_policy_that_is_mended_lets_the_active_version_be_as_the_spec_says() -> None:
    world = serving()
    world.target = judged("A", refusal=(Reason.NO_MATCHING_POLICY, "no policy matches"))
    world.settle()
    world.edit(replicas=3)
    world.settle()
    world.target = judged("A")
    world.settle()
    assert world.sizes() == {"A": 3}
    assert world.told()[-1] == "ArtifactVerified"


def test_a_candidate_that_policies_refuse_now_is_dropped() -> None:
    world = serving()
    world.target = judged("B")
    world.settle()
    world.target = judged("B", refusal=UNSIGNED)
    world.settle()
    assert (world.sizes(), world.slots()) == ({"A": 1}, {"active": "A"})


def test_an_expired_active_version_serves_and_is_called_stale() -> None:
    world = serving()
    world.target = judged("A", stale="version 1.1.0 expired on 2026-01-01")
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Degraded") == ("True", "Stale")


def test_a_registry_that_goes_away_touches_nothing() -> None:
    world = serving()
    world.target = UNREACHABLE
    decision = world.turn()
    assert (decision.apply, decision.delete, decision.events) == ((), (), ())
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("ArtifactVerified") == ("Unknown", "RegistryUnreachable")
    assert world.condition("Progressing") == ("False", "Complete")
    world.edit(replicas=3)
    world.settle()
    assert world.sizes() == {"A": 3}
