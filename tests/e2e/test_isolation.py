"""Two EdgeModels of one name in two namespaces never see each other's artifacts or secrets."""

from collections.abc import Callable
from pathlib import Path

from testbed import magika_model
from tests.e2e.conftest import Site


def test_same_name_two_namespaces(make_site: Callable[[str], Site]) -> None:
    north, south = make_site("t-isolation-north"), make_site("t-isolation-south")
    first = north.serve("v1", sequence=1)
    second = south.serve("v2", sequence=9)
    assert first != second
    for site, version in ((north, "v1"), (south, "v2")):
        answer = site.bed.infer(site.url(), "detector", magika_model.request(magika_model.SAMPLES["shell"]))
        assert answer["model_version"] == version
        (pod,) = site.kube.list("pods", site.namespace, "edgemodel.io/model=detector")
        assert pod["spec"].get("automountServiceAccountToken") is False
        assert not any("secret" in volume for volume in pod["spec"]["volumes"])
    assert north.status()["highestSequence"] == 1
    assert south.status()["highestSequence"] == 9


def test_a_secret_of_another_namespace_is_not_used(make_site: Callable[[str], Site], tmp_path: Path) -> None:
    owner, other = make_site("t-secret-owner"), make_site("t-secret-other")
    private = owner.bed.private_registry
    assert private is not None
    owner.kube.apply(private.pull_secret("pull", owner.namespace))
    publisher = private.publisher(tmp_path)
    digest = publisher.publish(
        magika_model.release("v1"), f"{owner.namespace}/detector:stable", version="v1", key=owner.key
    )
    owner.policy(match={"images": [f"{private.host}/{owner.namespace}/**"]})
    image = f"{private.host}/{owner.namespace}/detector:stable"
    owner.apply(image=image, pullSecrets=[{"name": "pull"}])
    owner.await_active(digest)
    other.policy(match={"images": [f"{private.host}/**"]})
    other.apply(image=image, pullSecrets=[{"name": "pull"}])
    refused = other.await_condition("ArtifactVerified", "Unknown", "AuthenticationFailed")
    assert "pull" in refused["message"]
    assert other.active() is None
