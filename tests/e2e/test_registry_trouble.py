"""The registry is gone, slow, or not who it says it is: status says Unknown and why, and what serves is untouched."""

import pytest

from testbed import magika_model
from tests.e2e.conftest import Site


def serves(site: Site) -> None:
    assert site.kube.condition("detector", "Ready", site.namespace)["status"] == "True"
    answer = site.bed.infer(site.url(), "detector", magika_model.request(magika_model.SAMPLES["json"]))
    assert answer["model_version"] == "v1"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("closed", "RegistryUnreachable"),
        ("silent", "RegistryUnreachable"),
        ("wrong-certificate", "RegistryUnreachable"),
        ("wrong-password", "AuthenticationFailed"),
    ],
)
def test_trouble_on_the_way_is_unknown_and_touches_nothing(site: Site, host: str, reason: str) -> None:
    old = site.serve("v1", sequence=1)
    before = {pod["metadata"]["uid"] for pod in site.kube.list("pods", site.namespace)}
    site.apply(image=f"{site.bed.troubled_registry(host)}/{site.namespace}/detector:stable")
    trouble = site.await_condition("ArtifactVerified", "Unknown", reason, timeout=120)
    assert site.bed.troubled_registry(host) in trouble["message"]
    assert site.active() == old
    assert {pod["metadata"]["uid"] for pod in site.kube.list("pods", site.namespace)} == before
    serves(site)
    site.apply()
    site.await_condition("ArtifactVerified", "True", "Verified", timeout=120)


def test_a_tag_that_does_not_exist_is_named(site: Site) -> None:
    site.serve("v1", sequence=1)
    site.apply(image=site.image(tag="absent"))
    missing = site.await_condition("ArtifactVerified", "Unknown", "NotFound")
    assert "absent" in missing["message"]
    serves(site)
