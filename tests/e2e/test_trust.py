"""What must never serve: each is refused with its own reason, and the version before it goes on answering."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from testbed import magika_model
from testbed.kube import Kube
from tests.e2e.conftest import Site


def still_serves(site: Site, digest: str) -> None:
    assert site.active() == digest
    assert site.kube.condition("detector", "Ready", site.namespace)["status"] == "True"
    answer = site.bed.infer(site.url(), "detector", magika_model.request(magika_model.SAMPLES["python"]))
    assert answer["model_version"] == "v1"


def event_reasons(kube: Kube, namespace: str) -> set[str]:
    return {event["reason"] for event in kube.list("events", namespace)}


def test_an_unsigned_artifact_is_refused_until_it_is_signed(site: Site) -> None:
    old = site.serve("v1", sequence=1)
    new = site.publish("v2", sequence=2, key=None)
    refusal = site.await_condition("ArtifactVerified", "False", "SignatureMissing")
    assert new.removeprefix("sha256:")[:12] in refusal["message"]
    still_serves(site, old)
    site.kube.until(lambda: "SignatureRejected" in event_reasons(site.kube, site.namespace), "an Event")
    site.publisher.sign(f"{site.namespace}/detector@{new}", site.key)
    site.await_active(new)


def test_a_foreign_key_is_refused(site: Site) -> None:
    old = site.serve("v1", sequence=1)
    site.publish("v2", sequence=2, key=site.publisher.key("stranger"))
    site.await_condition("ArtifactVerified", "False", "KeyUnknown")
    still_serves(site, old)


def test_a_tampered_manifest_with_a_copied_signature_is_refused(site: Site) -> None:
    old = site.serve("v1", sequence=1)
    site.publish("v2", sequence=2, tag="honest")
    site.bed.registry_tools.tamper_manifest(f"{site.namespace}/detector", "honest", "stable")
    site.await_condition("ArtifactVerified", "False", "SignatureInvalid")
    still_serves(site, old)


def test_an_older_version_is_refused(site: Site) -> None:
    old = site.serve("v1", sequence=7)
    site.publish("v2", sequence=6)
    refusal = site.await_condition("ArtifactVerified", "False", "DowngradeRefused")
    assert "6" in refusal["message"]
    assert "7" in refusal["message"]
    still_serves(site, old)


def test_an_artifact_signed_for_another_name_is_refused(site: Site) -> None:
    old = site.serve("v1", sequence=1)
    site.publish("v2", name="classifier", sequence=2)
    site.bed.registry_tools.copy(
        f"{site.namespace}/classifier", "stable", f"{site.namespace}/detector", "stable"
    )
    site.await_condition("ArtifactVerified", "False", "WrongModel")
    still_serves(site, old)


def test_bytes_altered_in_the_registry_never_reach_the_server(site: Site, tmp_path: Path) -> None:
    old = site.serve("v1", sequence=1)
    # A model of its own: the registry keeps equal layers once, and this one stays damaged.
    weights = numpy_helper.from_array(
        np.random.default_rng().standard_normal((512, 512), dtype=np.float32), "w"
    )
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "unique",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 512])],
        [weights],
    )
    model = tmp_path / "model.onnx"
    opset = helper.make_opsetid("", 17)
    model.write_bytes(helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString())
    digest = site.publish(model, sequence=2, tag="damaged")
    site.bed.registry_tools.flip_byte_of_largest_layer(f"{site.namespace}/detector", "damaged")
    site.apply(image=site.image(tag="damaged"))
    site.await_condition("ArtifactDelivered", "False", "DigestMismatch")
    still_serves(site, old)
    site.await_condition("RolledBack", "True")
    assert site.status()["rolledBack"]["digest"] == digest


def test_without_a_policy_nothing_runs(site: Site) -> None:
    site.publish("v1")
    site.apply()
    site.await_condition("ArtifactVerified", "False", "NoMatchingPolicy")
    assert site.kube.list("deployments", site.namespace) == []
    assert site.kube.condition("detector", "Ready", site.namespace)["status"] != "True"


@pytest.mark.parametrize("secret", ["hunter2-of-the-registry"])
def test_credentials_appear_in_no_status_event_or_log(site: Site, secret: str, tmp_path: Path) -> None:
    auth = {"auths": {site.bed.registry: {"username": "edge", "password": secret}}}
    site.kube(
        "create",
        "secret",
        "docker-registry",
        "pull",
        "-n",
        site.namespace,
        f"--docker-server={site.bed.registry}",
        "--docker-username=edge",
        f"--docker-password={secret}",
    )
    site.serve("v1", pullSecrets=[{"name": "pull"}])
    told = json.dumps(site.kube.get("edgemodel", "detector", site.namespace))
    told += json.dumps(site.kube.list("events", site.namespace))
    told += site.bed.operator_log()
    for pod in site.kube.list("pods", site.namespace):
        told += site.kube("logs", pod["metadata"]["name"], "-n", site.namespace, "--all-containers")
    assert auth["auths"]
    assert secret not in told
