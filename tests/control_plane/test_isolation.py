"""Two namespaces with models of one name never see each other's artifacts, credentials or objects."""

from collections.abc import Callable
from typing import Any

from edgemodel.cluster.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE
from tests.control_plane.conftest import Start
from tests.control_plane.fake_kubelet import FakeKubelet
from tests.control_plane.site import Site


async def test_two_models_of_one_name_have_their_own_artifacts_and_children(
    sites: Callable[[], Any], start: Start, kubelet: FakeKubelet
) -> None:
    one: Site = await sites()
    two: Site = await sites()
    async with start(namespaces=[]):
        digests = {}
        for site in (one, two):
            digests[site.namespace] = site.publish(f"1.0.0-{site.namespace}")
            await site.policy()
            await site.apply()
        for site in (one, two):
            await site.serves(digests[site.namespace])
            (deployment,) = await site.deployments()
            assert digests[site.namespace] in str(deployment)
            config = await site.api.get(CONFIG_MAP, site.namespace, "detector-delivery")
            other = two if site is one else one
            assert config is not None
            assert other.namespace not in config["data"]["policies.json"]


async def test_a_model_without_credentials_gains_nothing_from_anothers(
    sites: Callable[[], Any], start: Start, kubelet: FakeKubelet
) -> None:
    rich: Site = await sites()
    poor: Site = await sites()
    rich.registry.auth = "basic"
    rich.registry.users["edge"] = "right-password"
    async with start(namespaces=[]):
        digest = rich.publish("1.0.0")
        await rich.policy(match={"images": [f"{rich.registry.host}/**"]})
        await rich.pull_secret("pull", "edge", "right-password")
        await rich.apply(pullSecrets=[{"name": "pull"}])
        await rich.serves(digest)
        # The very image, allowed by the same policy, that the other namespace has already had fetched and verified.
        await poor.apply(image=rich.image(), pullSecrets=[{"name": "pull"}])
        message = await poor.becomes("ArtifactVerified", "Unknown", "AuthenticationFailed")
        assert "pull" in message
        assert await poor.deployments() == ()


async def test_a_policy_for_some_namespaces_governs_no_other(
    sites: Callable[[], Any], start: Start, kubelet: FakeKubelet
) -> None:
    inside: Site = await sites()
    outside: Site = await sites()
    labels = {"metadata": {"labels": {"edge": inside.namespace}}}
    await inside.api.merge(NAMESPACE, None, inside.namespace, labels)
    async with start(namespaces=[]):
        digest = inside.publish("1.0.0")
        await inside.policy(
            match={
                "images": [f"{inside.registry.host}/**"],
                "namespaceSelector": {"matchLabels": {"edge": inside.namespace}},
            }
        )
        await inside.apply()
        await outside.apply(image=inside.image())
        await inside.serves(digest)
        await outside.becomes("ArtifactVerified", "False", "NoMatchingPolicy")
        assert await outside.children(DEPLOYMENT) == ()
