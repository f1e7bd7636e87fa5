"""From a signed model in a registry to right answers, and from one version to the next without a failed request."""

import numpy as np

from testbed import magika_model
from testbed.load import Load
from tests.e2e.conftest import Site


def test_five_lines_make_a_model_that_answers_like_onnxruntime(site: Site) -> None:
    digest = site.publish("v1")
    site.policy()
    site.kube(
        "apply",
        "-f",
        "-",
        stdin=(
            "apiVersion: edgemodel.io/v1alpha1\n"
            "kind: EdgeModel\n"
            f"metadata: {{name: detector, namespace: {site.namespace}}}\n"
            "spec:\n"
            f"  image: {site.image()}\n"
        ),
    )
    site.await_condition("Ready", "True", "Serving")
    assert site.active() == digest
    for kind, content in magika_model.SAMPLES.items():
        answer = site.bed.infer(site.url(), "detector", magika_model.request(content))
        np.testing.assert_allclose(
            magika_model.scores(answer), magika_model.expected("v1", content), rtol=1e-5, atol=1e-6
        )
        assert answer["model_version"] == "v1", kind
    for condition, status, reason in [
        ("ArtifactVerified", "True", "Verified"),
        ("ArtifactDelivered", "True", "Pulled"),
        ("ModelLoaded", "True", "Loaded"),
        ("Progressing", "False", "Complete"),
        ("Stalled", "False", "None"),
    ]:
        found = site.kube.condition("detector", condition, site.namespace)
        assert (found["status"], found["reason"]) == (status, reason), condition


def test_a_new_version_under_the_same_tag_takes_over_without_a_failed_request(site: Site) -> None:
    site.serve("v1", sequence=1, replicas=2)
    # Each answer takes this model some milliseconds of a core: a busy machine has to keep up.
    with Load(site.url(), "detector", magika_model.cases("v1", "v2"), rate=15) as load:
        site.kube.until(lambda: load.answers["v1"] > 50, "answers from v1")
        digest = site.publish("v2", sequence=2)
        site.await_active(digest)
        site.await_condition("Progressing", "False", "Complete")
        before = load.answers["v2"]
        site.kube.until(lambda: load.answers["v2"] > before + 100, "answers from v2")
        old_pods = f"edgemodel.io/model=detector,edgemodel.io/digest!={digest.removeprefix('sha256:')[:16]}"
        site.kube.until(
            lambda: not site.kube.list("pods", site.namespace, old_pods), "the old pods to be gone"
        )
    assert load.trouble == []
    last = site.status()["slots"]["lastGood"]
    assert last["version"] == "v1"
