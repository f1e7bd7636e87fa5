"""What is wrong is refused where it is said, with words that help; what serves is not touched."""

import pytest

from edgemodel.cluster.client import Rejected
from edgemodel.cluster.kinds import CONFIG_MAP, EDGE_MODEL, SERVICE
from tests.control_plane.fake_kubelet import Failure, FakeKubelet
from tests.control_plane.operator_process import OperatorProcess
from tests.control_plane.site import Site
from tests.control_plane.waiting import until


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"replicas": -1}, "spec.replicas"),
        ({"pollInterval": "soon"}, "spec.pollInterval"),
        ({"image": ""}, "spec.image"),
        ({"rollout": {"strategy": "Hope"}}, "spec.rollout.strategy"),
    ],
)
async def test_a_malformed_model_is_refused_by_the_api_server_which_names_the_field(
    site: Site, spec: dict[str, object], field: str
) -> None:
    with pytest.raises(Rejected, match=field):
        await site.apply(**spec)


async def test_an_image_that_is_no_reference_is_a_persons_business(
    site: Site, running: OperatorProcess
) -> None:
    await site.policy()
    await site.apply(image="detector")
    message = await site.becomes("Stalled", "True", "InvalidSpec")
    assert "detector" in message


async def test_a_child_that_the_api_server_finds_invalid_is_said_and_a_corrected_spec_is_tried(
    site: Site, running: OperatorProcess
) -> None:
    digest = site.publish("1.0.0")
    await site.policy()
    await site.apply(server={"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})
    message = await site.becomes("Stalled", "True", "InvalidSpec")
    assert "requests" in message
    assert "Deployment/" in message
    await site.apply(server={"resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}})
    await site.serves(digest)
    assert (await site.condition("Stalled"))[0] == "False"


async def test_names_that_belong_to_somebody_else_are_left_alone(
    site: Site, running: OperatorProcess
) -> None:
    digest = site.publish("1.0.0")
    await site.policy()
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "detector", "namespace": site.namespace, "labels": {"owner": "somebody"}},
        "spec": {"ports": [{"port": 1234}]},
    }
    live = await site.api.apply(SERVICE, foreign, manager="somebody")
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "detector-delivery", "namespace": site.namespace},
        "data": {"mine": "yes"},
    }
    await site.api.apply(CONFIG_MAP, config, manager="somebody")
    await site.apply()
    message = await site.becomes("Stalled", "True", "NameConflict")
    assert "Service/detector" in message
    now = await site.service()
    assert now is not None
    assert now["metadata"]["uid"] == live["metadata"]["uid"]
    assert now["spec"]["ports"][0]["port"] == 1234
    assert not now["metadata"].get("ownerReferences")
    left = await site.api.get(CONFIG_MAP, site.namespace, "detector-delivery")
    assert left is not None
    assert left["data"] == {"mine": "yes"}
    await site.api.delete(SERVICE, site.namespace, "detector", uid=live["metadata"]["uid"])
    await site.api.delete(CONFIG_MAP, site.namespace, "detector-delivery", uid=left["metadata"]["uid"])
    await site.apply(annotations={"edgemodel.io/retry": "1"})
    await site.serves(digest)


async def test_a_registry_in_trouble_changes_what_is_said_and_nothing_else(
    site: Site, running: OperatorProcess
) -> None:
    await site.serve()
    site.registry.fault("GET", "/v2/", times=None, status=503)
    site.registry.fault("HEAD", "/v2/", times=None, status=503)
    await site.becomes("ArtifactVerified", "Unknown", "RegistryUnreachable", seconds=40)
    assert (await site.condition("Ready"))[:2] == ("True", "Serving")
    await site.api.merge(EDGE_MODEL, site.namespace, "detector", {"spec": {"replicas": 2}})
    await until(lambda: two_answer(site), "scaling works without the registry")


async def two_answer(site: Site) -> bool:
    return bool((await site.status()).get("readyReplicas") == 2)


async def test_a_wrong_password_says_so_and_a_right_one_is_taken_up(
    site: Site, running: OperatorProcess
) -> None:
    site.registry.auth = "basic"
    site.registry.users["edge"] = "right-password"
    digest = site.publish("1.0.0")
    await site.policy()
    await site.pull_secret("pull", "edge", "wrong-password")
    await site.apply(pullSecrets=[{"name": "pull"}])
    await site.becomes("ArtifactVerified", "Unknown", "AuthenticationFailed")
    await site.pull_secret("pull", "edge", "right-password")
    await site.apply(pullSecrets=[{"name": "pull"}], annotations={"edgemodel.io/retry": "1"})
    await site.serves(digest)
    everything = (
        running.log.read_text() + str(await site.model()) + str(await site.events("ArtifactVerified"))
    )
    assert "right-password" not in everything
    assert "wrong-password" not in everything


async def test_a_version_that_cannot_be_loaded_is_reported_while_the_old_one_serves(
    site: Site, running: OperatorProcess, kubelet: FakeKubelet
) -> None:
    first = await site.serve()
    second = site.publish("2.0.0", signed=False)
    label = second.removeprefix("sha256:")[:16]
    kubelet.fates[site.namespace, label] = Failure("server", "UnsupportedOpset", "opset 99 is not known")
    site.publisher.sign(f"{site.namespace}/detector", second, site.key)
    message = await site.becomes("RolledBack", "True", seconds=30)
    assert "opset 99" in message
    assert (await site.condition("Ready"))[:2] == ("True", "Serving")
    await site.serves(first)
    assert await running.metric("edgemodel_rollbacks_total") == 1
