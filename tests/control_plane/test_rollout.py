"""Rollouts that are judged, on a real API server: what status remembers survives it, and orders are annotations.

Pods here answer nobody, so that all evidence is silence; what a gate makes of answers is told in the end-to-end tests.
"""

import signal
from typing import Any

from edgemodel.cluster.kinds import EDGE_MODEL
from tests.control_plane.conftest import Start
from tests.control_plane.fake_kubelet import FakeKubelet
from tests.control_plane.operator_process import OperatorProcess
from tests.control_plane.site import Site
from tests.control_plane.waiting import until

WINDOW = "8s"
JUDGED: dict[str, Any] = {"gate": {"window": WINDOW, "goldenSamples": "Ignore"}}


async def under_watch(site: Site, digest: str) -> dict[str, Any]:
    """Wait until a candidate has all requests; return the rollout's status."""

    async def look() -> dict[str, Any]:
        status = await site.status()
        candidate = (status.get("slots") or {}).get("candidate") or {}
        rollout: dict[str, Any] = status.get("rollout") or {}
        return rollout if candidate.get("digest") == digest and rollout.get("weight") == 100 else {}

    return await until(look, "the new version has all requests")


async def annotate(site: Site, **annotations: str | None) -> None:
    found = {f"edgemodel.io/{name}": value for name, value in annotations.items()}
    patch = {"metadata": {"annotations": found}}
    await site.api.merge(EDGE_MODEL, site.namespace, "detector", patch)


async def selects(site: Site, digest: str) -> bool:
    service = await site.service()
    return service is not None and digest.removeprefix("sha256:")[:16] in str(service["spec"].get("selector"))


async def test_an_operator_that_is_killed_under_way_goes_on_where_it_was(
    site: Site, start: Start, kubelet: FakeKubelet
) -> None:
    async with start() as operator:
        await site.serve(rollout=JUDGED)
        second = site.publish("2.0.0")
        before = await under_watch(site, second)
        assert await selects(site, second)
        assert len(await site.deployments()) == 2
        assert (before["step"], before["steps"]) == (1, 1)
        await operator.stop(signal.SIGKILL)
    async with start():
        await site.serves(second)
    (started,) = [one for one in await site.events("RolloutStarted") if "2.0.0" in one["message"]]
    assert started["message"].startswith("Version 2.0.0")
    assert "rollout" not in await site.status()


async def test_a_version_that_serves_makes_way_by_order_and_stays_away(
    site: Site, running: OperatorProcess
) -> None:
    first = await site.serve()
    second = site.publish("2.0.0")
    await site.serves(second)
    await annotate(site, rollback=second)
    await site.serves(first)
    await site.becomes("RolledBack", "True", "Manual")
    assert "lastGood" not in (await site.status())["slots"]
    await annotate(site, rollback=None, retry="1")
    await site.serves(second)
    await site.becomes("RolledBack", "False", "None")


async def test_a_candidate_goes_by_order_and_the_old_version_is_back(
    site: Site, running: OperatorProcess
) -> None:
    first = await site.serve(rollout={"gate": {"window": "10m", "goldenSamples": "Ignore"}})
    second = site.publish("2.0.0")
    await under_watch(site, second)
    await annotate(site, rollback=second.removeprefix("sha256:")[:12])
    await site.serves(first)
    await until(lambda: selects(site, first), "the Service selects the old version")

    async def alone() -> bool:
        return len(await site.deployments()) == 1

    await until(alone, "the candidate's Deployment goes")


async def test_a_canary_waits_for_traffic_and_is_promoted_by_order(
    site: Site, running: OperatorProcess
) -> None:
    await site.serve()
    canary = {"strategy": "Canary", "gate": {"window": "1s", "goldenSamples": "Ignore"}}
    await site.apply(rollout=canary)
    second = site.publish("2.0.0")
    message = await site.becomes("Stalled", "True", "GatewayMissing")
    assert "Surge" in message
    await site.apply(rollout={**canary, "strategy": "Surge", "gate": {**canary["gate"], "onNoData": "Hold"}})  # type: ignore[dict-item]
    await site.becomes("Progressing", "False", "GateInconclusive")
    await annotate(site, promote=second)
    await site.serves(second)


async def test_a_first_version_serves_though_its_pods_tell_nothing_of_golden_samples(
    site: Site, running: OperatorProcess
) -> None:
    site.publish("1.0.0")
    await site.policy()
    await site.apply(rollout={"gate": {"window": "0s", "goldenSamples": "IfPresent"}})
    message = await site.becomes("Ready", "False", "Starting")
    assert "golden samples" in message or "loading" in message
    await site.becomes("Ready", "True", "Serving")


async def test_golden_samples_that_are_required_and_missing_keep_a_first_version_from_serving(
    site: Site, running: OperatorProcess
) -> None:
    site.publish("1.0.0")
    await site.policy()
    await site.apply(rollout={"gate": {"goldenSamples": "Required"}})

    async def kept_back() -> bool:
        # Which of the two depends on whether anybody answers at the address that the fake kubelet makes up.
        return (await site.condition("Progressing"))[1] in ("GateInconclusive", "GoldenSamplesFailed")

    await until(kept_back, "the first version is kept from serving")
    assert (await site.condition("Ready"))[0] == "False"
    service = await site.service()
    assert service is not None
    assert not service["spec"].get("selector")
