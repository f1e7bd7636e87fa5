"""The API server goes away for a while: nothing is lost, nothing is repeated, the operator stays."""

from pathlib import Path

from edgemodel.cluster.kinds import EDGE_MODEL, SERVICE
from tests.control_plane.fake_kubelet import FakeKubelet
from tests.control_plane.operator_process import operator
from tests.control_plane.outage import wire
from tests.control_plane.site import Site
from tests.control_plane.waiting import until


async def test_what_happened_during_an_outage_is_caught_up_with(
    site: Site, kubelet: FakeKubelet, kubeconfig: Path, tmp_path: Path
) -> None:
    settings = {"namespaces": [site.namespace], "registries": {site.registry.host: {"plainHTTP": True}}}
    first = site.publish("1.0.0")
    await site.policy()
    await site.apply()
    async with wire(kubeconfig, tmp_path) as (line, wired), operator(tmp_path, wired, **settings) as running:
        await site.serves(first)
        line.cut()
        await until(lambda: running.said("pass put off"), "a pass meets the outage")
        await site.api.merge(EDGE_MODEL, site.namespace, "detector", {"spec": {"replicas": 2}})
        second = site.publish("2.0.0")
        service = await site.service()
        assert service is not None
        await site.api.delete(SERVICE, site.namespace, "detector", uid=service["metadata"]["uid"])
        line.mend()
        await site.serves(second, seconds=60)

        async def two_answer() -> bool:
            return bool((await site.status()).get("readyReplicas") == 2)

        await until(two_answer, "both pods answer", seconds=30)
        assert running.process.returncode is None
        assert (await running.get("/healthz")).status_code == 200
