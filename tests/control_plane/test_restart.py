"""An operator that dies at any moment is continued by the next; a standby takes over; nobody acts twice."""

import asyncio
import signal
from typing import Any

import pytest

from edgemodel.cluster.kinds import LEASE
from tests.control_plane.conftest import Start
from tests.control_plane.fake_kubelet import FakeKubelet
from tests.control_plane.site import Site
from tests.control_plane.waiting import until

MUCH: dict[str, Any] = {
    "replicas": 2,
    "pollInterval": "1m30s",
    "pullSecrets": [{"name": "pull"}],
    "modelFile": "model.onnx",
    "server": {
        "resources": {
            "requests": {"cpu": "1000m", "memory": "1024Mi"},
            "limits": {"cpu": 2, "memory": "2Gi"},
        },
        "threads": 2,
        "extraEnv": [
            {"name": "PLAIN", "value": "1"},
            {"name": "FROM", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
    },
    "podTemplate": {
        "labels": {"team": "edge"},
        "annotations": {"note": "yes"},
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [
            {"key": "edge", "operator": "Exists"},
            {"key": "gpu", "value": "no", "effect": "NoSchedule"},
        ],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}
                ]
            }
        },
    },
    "rollout": {"progressDeadline": "5m"},
}
"""A spec with everything in it: what the API server defaults, orders or rewrites must not look like drift."""


@pytest.mark.parametrize("after", ["deployment", "service", "candidate"])
async def test_a_rollout_cut_off_midway_is_finished_by_the_next_operator(
    site: Site, start: Start, kubelet: FakeKubelet, after: str
) -> None:
    first = site.publish("1.0.0")
    await site.policy()
    # Until the operator is cut off no pod gets ready: else what is waited for is over before anybody looked.
    kubelet.fates[site.namespace, "detector"] = None

    async def reached() -> bool:
        if after == "deployment":
            return bool(await site.deployments())
        if after == "service":
            return bool(await site.service())
        status = await site.status()
        return bool(status.get("slots", {}).get("candidate"))

    async with start(wait=False) as operator:
        await site.apply()
        await until(reached, f"{after} exists")
        await operator.stop(signal.SIGKILL)
    del kubelet.fates[site.namespace, "detector"]
    second = site.publish("2.0.0")
    async with start():
        await site.serves(second)
    tried = [event["message"] for event in await site.events("RolloutStarted")]
    assert len(tried) == len(set(tried)), f"told twice: {tried}; first was {first}"


async def test_a_restart_over_a_settled_world_writes_nothing(
    site: Site, start: Start, kubelet: FakeKubelet
) -> None:
    digest = site.publish("1.0.0")
    await site.policy()
    await site.pull_secret("pull", "edge", "password")
    await site.apply(**MUCH)
    async with start() as operator:
        await site.serves(digest)
        await until(lambda: two_answer(site), "both pods answer")
        assert await operator.stop() == 0
    before = await site.versions()
    async with start() as operator:

        async def passes_were_made() -> bool:
            return await operator.metric("edgemodel_reconcile_total", result="ok") >= 1

        await until(passes_were_made, "a pass is made")
        assert await operator.metric("edgemodel_reconcile_total", result="wrote") == 0
    assert await site.versions() == before


async def two_answer(site: Site) -> bool:
    return bool((await site.status()).get("readyReplicas") == 2)


async def test_sigterm_ends_the_operator_in_good_order_within_ten_seconds(
    site: Site, start: Start, kubelet: FakeKubelet
) -> None:
    site.publish("1.0.0")
    await site.policy()
    async with start() as operator:
        await site.apply()
        await until(site.deployments, "work has begun")
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await operator.stop() == 0
        assert loop.time() - began < 10
        assert operator.said("operator stops")


async def test_a_standby_waits_takes_over_a_silent_leader_and_is_given_way_by_one_that_ends(
    site: Site, start: Start, kubelet: FakeKubelet
) -> None:
    election = {
        "leaderElection": True,
        "leaseNamespace": site.namespace,
        "leaseName": "operator",
        "leaseDuration": 3.0,
        "leaseRenewDeadline": 2.0,
        "leaseRetry": 0.3,
    }
    first = site.publish("1.0.0")
    await site.policy()
    async with start(**election) as leader, start(wait=False, **election) as standby:
        await until(lambda: standby.said("standing by for the lease"), "the second stands by")
        await site.apply()
        await site.serves(first)
        assert (await standby.get("/readyz")).status_code == 200
        assert await leader.metric("edgemodel_leader") == 1
        assert await standby.metric("edgemodel_leader") == 0
        assert not standby.said("watching")
        await leader.stop(signal.SIGKILL)
        second = site.publish("2.0.0")
        await site.serves(second, seconds=30)
        assert standby.said("leading")
        async with start(wait=False, **election) as third:
            await until(lambda: third.said("standing by for the lease"), "the third stands by")
            assert await standby.stop() == 0
            await until(lambda: third.said("leading"), "the third is given the lease", seconds=2.5)
            lease = await site.api.get(LEASE, site.namespace, "operator")
            assert lease is not None
            assert lease["spec"]["leaseTransitions"] >= 2


async def test_a_leader_whose_lease_is_taken_ends_at_once_and_writes_no_more(
    site: Site, start: Start, kubelet: FakeKubelet
) -> None:
    election = {
        "leaderElection": True,
        "leaseNamespace": site.namespace,
        "leaseName": "operator",
        "leaseDuration": 3.0,
        "leaseRenewDeadline": 2.0,
        "leaseRetry": 0.2,
    }
    async with start(**election) as leader:
        patch = {"spec": {"holderIdentity": "usurper"}}

        async def usurped() -> bool:
            await site.api.merge(LEASE, site.namespace, "operator", patch)
            return leader.process.returncode is not None

        await until(usurped, "the leader ends", seconds=8)
        assert leader.process.returncode == 1
        assert "leadership ended" in leader.said("operator ends")[0]["cause"]
