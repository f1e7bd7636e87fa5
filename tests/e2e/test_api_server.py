"""What the API server itself says: refusals that name the field, explanations, columns."""

import pytest

from tests.e2e.conftest import Site


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"image": None}, "spec.image"),
        ({"image": ""}, "spec.image"),
        ({"replicas": -1}, "spec.replicas"),
        ({"pollInterval": "soon"}, "spec.pollInterval"),
        ({"rollout": {"strategy": "Yolo"}}, "spec.rollout.strategy"),
        ({"server": {"imgae": "x"}}, "imgae"),
        ({"replcas": 2}, "replcas"),
    ],
)
def test_a_malformed_model_is_refused_with_the_fields_name(
    site: Site, spec: dict[str, object], says: str
) -> None:
    refusal = site.kube.apply(site.document(**spec), check=False)
    assert says in refusal
    with pytest.raises(LookupError):
        site.kube.get("edgemodel", "detector", site.namespace)


def test_a_name_that_children_cannot_bear_is_refused(site: Site) -> None:
    refusal = site.kube.apply(site.document("n" * 60), check=False)
    assert "metadata.name" in refusal or "name" in refusal
    assert "50" in refusal


def test_explain_reads_well(site: Site) -> None:
    told = site.kube("explain", "em.spec.rollout")
    assert "strategy" in told
    assert "needs memory for both" in told.replace("\n", " ")
    assert "progressDeadline" in told


def test_columns_tell_the_story(site: Site) -> None:
    site.serve("v1", sequence=3)
    header, row = site.kube("get", "em", "-n", site.namespace).splitlines()
    assert header.split()[:3] == ["NAME", "READY", "STATUS"]
    assert row.split()[:4] == ["detector", "True", "Serving", "v1"]
    wide = site.kube("get", "em", "-n", site.namespace, "-o", "wide")
    assert "sha256:" in wide
    assert f"http://detector.{site.namespace}.svc" in wide
    assert "detector" in site.kube("get", "all", "-n", site.namespace)
