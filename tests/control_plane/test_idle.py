"""An operator with nothing to do writes nothing, and stays small."""

import asyncio
import json
from pathlib import Path

import pytest

from edgemodel.cluster.kinds import EDGE_MODEL
from tests.control_plane.conftest import Start
from tests.control_plane.fake_kubelet import FakeKubelet
from tests.control_plane.site import Site
from tests.control_plane.waiting import until

MODELS = 100
MAX_RSS = 90.0
"""MiB; with this many models, kopf, the Kubernetes client and the registry client included."""


@pytest.mark.timeout(400)
async def test_a_hundred_settled_models_cost_no_write_and_little_memory(
    site: Site, start: Start, kubelet: FakeKubelet, kubeconfig: Path
) -> None:
    digest = site.publish("1.0.0")
    await site.policy()
    names = [f"detector-{number:03}" for number in range(MODELS)]
    for name in names:
        await site.apply(name, pollInterval="2s")
    async with start(resyncInterval=10) as operator:
        for name in names:
            await site.serves(digest, name, seconds=90)

        async def all_answer() -> bool:
            models = await site.api.list(EDGE_MODEL, site.namespace)
            return sum(it["status"].get("readyReplicas") == 1 for it in models) == MODELS

        await until(all_answer, "all answer")
        await quiet(kubeconfig)
        before = await versions(site)
        writes = operator_writes(kubeconfig)
        passes = await operator.metric("edgemodel_reconcile_total")
        polls = len(site.registry.requests)

        async def looked_at_all_twice() -> bool:
            return await operator.metric("edgemodel_reconcile_total") >= passes + 2 * MODELS

        await until(looked_at_all_twice, "every model is looked at twice", seconds=60)
        assert len(site.registry.requests) >= polls + MODELS
        assert operator_writes(kubeconfig) == writes
        assert await operator.metric("edgemodel_reconcile_total", result="retry") == 0
        assert await versions(site) == before
        print(f"\nRSS with {MODELS} models: {operator.rss:.1f} MiB")
        assert operator.rss <= MAX_RSS


def operator_writes(kubeconfig: Path) -> int:
    """Count what operators have written, by the API server's own audit log."""
    log = kubeconfig.parent / "logs" / "audit.log"
    count = 0
    with log.open() as lines:
        for line in lines:
            if '"edgemodel-operator/' in line or '"kopf/' in line:
                event = json.loads(line)
                count += event["verb"] not in ("get", "list", "watch")
    return count


async def quiet(kubeconfig: Path) -> None:
    """Wait until no write has come for two seconds."""
    last = -1
    while (now := operator_writes(kubeconfig)) != last:
        last = now
        await asyncio.sleep(2)


async def versions(site: Site) -> dict[str, str]:
    """Return every model's resourceVersion."""
    models = await site.api.list(EDGE_MODEL, site.namespace)
    return {it["metadata"]["name"]: it["metadata"]["resourceVersion"] for it in models}
