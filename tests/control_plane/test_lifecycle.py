"""From apply to Ready, from version to version, to nothing: the everyday path on a real API server."""

from typing import Any

from edgemodel.cluster.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    EDGE_MODEL,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
)
from tests.control_plane.operator_process import OperatorProcess
from tests.control_plane.site import Site
from tests.control_plane.waiting import until


async def test_an_applied_model_becomes_ready(site: Site, running: OperatorProcess) -> None:
    digest = site.publish("1.0.0", sequence=1)
    await site.policy()
    await site.apply()
    await site.serves(digest)
    status = await site.status()
    assert status["replicas"] == status["readyReplicas"] == 1
    assert status["tag"]["digest"] == digest
    assert status["highestSequence"] == 1
    assert status["slots"]["active"]["verifiedBy"] == [f"{site.namespace}-site/site"]
    (deployment,) = await site.deployments()
    assert deployment["metadata"]["annotations"]["edgemodel.io/image"].endswith(f"@{digest}")
    await until(lambda: site.events("ArtifactVerified"), "the verification is told")


async def test_a_tag_that_moves_replaces_the_version_and_removes_the_old_one(
    site: Site, running: OperatorProcess
) -> None:
    first = await site.serve()
    second = site.publish("2.0.0")
    await site.serves(second)
    service = await site.service()
    assert service is not None
    assert second.removeprefix("sha256:")[:16] in str(service["spec"]["selector"])

    async def only_the_new_one_runs() -> bool:
        sizes = {
            it["metadata"]["annotations"]["edgemodel.io/image"].rpartition("@")[2]: it["spec"]["replicas"]
            for it in await site.deployments()
        }
        return sizes.get(second) == 1 and not sizes.get(first)

    await until(only_the_new_one_runs, "the old version is taken down")


async def test_replicas_are_scaled_through_the_scale_subresource(
    site: Site, running: OperatorProcess
) -> None:
    await site.serve()
    await site.api.merge(
        EDGE_MODEL, site.namespace, "detector", {"spec": {"replicas": 3}}, subresource="scale"
    )

    async def three_answer() -> bool:
        status = await site.status()
        return status["readyReplicas"] == 3

    await until(three_answer, "three pods answer")
    live = await site.api.read(EDGE_MODEL.path(site.namespace, "detector", subresource="scale"))
    assert live is not None
    assert live["status"]["replicas"] == 3


async def test_a_suspended_model_is_left_alone_until_it_is_not(site: Site, running: OperatorProcess) -> None:
    await site.serve()
    await site.apply(suspend=True)
    await site.becomes("Ready", "True", "Suspended")
    (deployment,) = await site.deployments()
    await site.api.merge(
        DEPLOYMENT, site.namespace, deployment["metadata"]["name"], {"spec": {"replicas": 2}}
    )
    second = site.publish("2.0.0")
    passes = await running.metric("edgemodel_reconcile_total")

    async def passes_were_made() -> bool:
        return await running.metric("edgemodel_reconcile_total") >= passes + 2

    await until(passes_were_made, "passes are made")
    (deployment,) = await site.deployments()
    assert deployment["spec"]["replicas"] == 2
    await site.apply(suspend=False)
    await site.serves(second)


async def test_drift_of_a_child_is_repaired(site: Site, running: OperatorProcess) -> None:
    await site.serve()
    (deployment,) = await site.deployments()
    name = deployment["metadata"]["name"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    drifted = {
        "spec": {"replicas": 5, "template": {"spec": {"containers": [{**container, "image": "evil:1"}]}}}
    }
    await site.api.merge(DEPLOYMENT, site.namespace, name, drifted)

    async def repaired() -> bool:
        live = await site.api.get(DEPLOYMENT, site.namespace, name)
        assert live is not None
        images = {it["image"] for it in live["spec"]["template"]["spec"]["containers"]}
        return live["spec"]["replicas"] == 1 and images == {container["image"]}

    await until(repaired, "drift is repaired")
    await site.api.merge(
        SERVICE, site.namespace, "detector", {"metadata": {"labels": {"edgemodel.io/model": None}}}
    )

    async def labelled_again() -> bool:
        live = await site.service()
        return live is not None and live["metadata"]["labels"].get("edgemodel.io/model") == "detector"

    await until(labelled_again, "a lost label comes back")


async def test_a_deleted_child_is_made_again(site: Site, running: OperatorProcess) -> None:
    digest = await site.serve(replicas=2)
    for kind in (SERVICE, CONFIG_MAP, POD_DISRUPTION_BUDGET, DEPLOYMENT):
        (child,) = await site.children(kind)
        old = child["metadata"]["uid"]
        await site.api.delete(kind, site.namespace, child["metadata"]["name"], uid=old)

        async def made_again(kind: Any = kind, old: str = old) -> bool:
            found = await site.children(kind)
            return [it["metadata"]["uid"] for it in found] not in ([], [old])

        await until(made_again, f"{kind.name} is made again")
    await site.serves(digest)


async def test_children_go_with_their_model_and_no_finalizer_holds_it(
    site: Site, running: OperatorProcess
) -> None:
    await site.serve()
    assert not (await site.model())["metadata"].get("finalizers")
    assert await running.metric("edgemodel_info", name="detector", namespace=site.namespace) == 1
    await site.delete()

    async def all_gone() -> bool:
        kinds = (DEPLOYMENT, SERVICE, CONFIG_MAP, POD_DISRUPTION_BUDGET, POD)
        return not any([await site.children(kind) for kind in kinds])

    # On a fresh cluster the garbage collector learns of our kinds only at its next discovery, every 30 s.
    await until(all_gone, "children are garbage-collected", seconds=75)

    async def metrics_gone() -> bool:
        text = (await running.get("/metrics")).text
        return f'namespace="{site.namespace}"' not in text

    await until(metrics_gone, "metrics of the model are gone")
