"""Models on nodes: the agent fetches and keeps them, pods mount them, and nothing on the way is trusted."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from testbed import magika_model
from testbed.edge_nodes import edge_nodes
from testbed.installation import processes_of
from tests.e2e.conftest import Site


def held(site: Site, digest: str) -> dict[str, Any]:
    """Return what the node's agent says of a version; empty while it says nothing."""
    (node,) = edge_nodes(site.bed)
    return node.held(site.namespace, digest)


def await_held(site: Site, digest: str, state: str = "Ready", timeout: float = 90) -> dict[str, Any]:
    site.kube.until(lambda: held(site, digest).get("state") == state, f"{digest} to be {state}", timeout)
    return held(site, digest)


def answers_like(site: Site, model: Path) -> None:
    """The Service gives the very answers of a model file."""
    for content in magika_model.SAMPLES.values():
        told = magika_model.scores(site.bed.infer(site.url(), "detector", magika_model.request(content)))
        np.testing.assert_allclose(told, magika_model.answer(model, content), rtol=1e-5, atol=1e-6)


def test_a_pod_mounts_the_model_read_only_from_the_nodes_store(site: Site) -> None:
    site.serve("v1", delivery="Node", replicas=2)
    site.kube.until(lambda: site.status().get("readyReplicas") == 2, "two ready pods")
    delivered = site.await_condition("ArtifactDelivered", "True", "Pulled")
    assert "1 node" in delivered["message"]
    assert site.status()["nodes"]["summary"] == "1/1"
    answers_like(site, magika_model.release("v1"))
    shares = []
    for pod in site.pods():
        assert "initContainers" not in pod["spec"]
        (process,) = processes_of([pod], b"inference_server")
        mounts = Path(f"/proc/{process}/mounts").read_text()
        (line,) = [line for line in mounts.splitlines() if " /models " in line]
        assert line.split()[3].split(",")[0] == "ro"
        root = Path(f"/proc/{process}/root/models")
        assert sorted(entry.name for entry in root.iterdir()) == [
            "model.json",
            "model.onnx",
            "model.onnx_data",
        ]
        shares.append((root / "model.onnx_data").stat().st_ino)
    assert len(set(shares)) == 1


def test_two_replicas_share_the_pages_of_the_weights(site: Site) -> None:
    site.serve("v1", delivery="Node", replicas=2)
    site.kube.until(lambda: site.status().get("readyReplicas") == 2, "two ready pods")
    answers_like(site, magika_model.release("v1"))
    for pod in site.pods():
        (process,) = processes_of([pod], b"inference_server")
        smaps = Path(f"/proc/{process}/smaps").read_text()
        mapping = smaps.split("/models/model.onnx_data", 1)[1]
        sizes = {
            name: int(size) for name, size in re.findall(r"^(Rss|Pss): +(\d+) kB", mapping, re.MULTILINE)[:2]
        }
        assert sizes["Rss"] > 0
        assert sizes["Pss"] <= 0.6 * sizes["Rss"]


def test_an_update_comes_as_a_delta_and_answers_like_the_full_model(site: Site, tmp_path: Path) -> None:
    with site.bed.slow_registry(rate=8e6) as link:
        # Weights that no other test has brought to the node: how fast the link is, is learnt from them.
        base = magika_model.nudged(tmp_path / "base" / "model.onnx", seed=11)
        old = site.publish(base, sequence=1)
        site.policy(match={"images": [f"{link.address}/{site.namespace}/**"]})
        site.apply(image=f"{link.address}/{site.namespace}/detector:stable", delivery="Node")
        site.await_condition("Ready", "True", "Serving")
        assert held(site, old)["kind"] == "Full"
        before = link.received
        model = magika_model.nudged(tmp_path / "nudged" / "model.onnx", of=base)
        new = site.publish(model, sequence=2, version="v1.1", more=("--delta-from", site.image()))
        site.await_alone(new)
        site.await_condition("ArtifactDelivered", "True", "DeltaApplied")
        came = held(site, new)
        assert came["kind"] == "Delta"
        assert came["savedBytes"] > 0.3 * model.stat().st_size
        assert site.status()["transfer"]["savedBytes"] == came["savedBytes"]
        assert link.received - before < 0.75 * model.stat().st_size
        answers_like(site, model)


def test_a_new_version_is_on_the_node_before_any_pod_changes(site: Site, tmp_path: Path) -> None:
    old = site.serve("v1", sequence=1, delivery="Node")
    before = {pod["metadata"]["uid"] for pod in site.pods()}
    with site.bed.agents_stopped():
        new = site.publish("v2", sequence=2)
        site.kube.until(
            lambda: (site.status()["slots"].get("candidate") or {}).get("digest") == new, "the candidate"
        )
        delivered = site.kube.condition("detector", "ArtifactDelivered", site.namespace)
        assert delivered["status"] != "True"
        assert {pod["metadata"]["uid"] for pod in site.pods()} == before
        assert site.active() == old
        answers_like(site, magika_model.release("v1"))
    site.await_alone(new)
    answers_like(site, magika_model.release("v2"))


def test_a_pod_of_another_namespace_gets_nothing(site: Site, make_site: Any) -> None:
    digest = site.serve("v1", delivery="Node")
    thief = make_site(f"{site.namespace[:50]}-thief")
    (server,) = [pod["spec"]["containers"][0]["image"] for pod in site.pods()]
    thief.kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "thief", "namespace": thief.namespace},
            "spec": {
                "containers": [
                    {
                        "name": "server",
                        "image": server,
                        "imagePullPolicy": "Never",
                        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
                    }
                ],
                "volumes": [
                    {
                        "name": "models",
                        "csi": {
                            "driver": "models.edgemodel.io",
                            "readOnly": True,
                            "volumeAttributes": {"model": "detector", "digest": digest},
                        },
                    }
                ],
            },
        }
    )

    def refused() -> bool:
        events = thief.kube.list("events", thief.namespace)
        return any(event["reason"] == "FailedMount" and "detector" in event["message"] for event in events)

    thief.kube.until(refused, "the mount to be refused", timeout=90)
    pod = thief.kube.get("pod", "thief", thief.namespace)
    assert pod["status"]["phase"] == "Pending"


def test_an_altered_file_takes_its_pods_down_and_is_fetched_anew(site: Site) -> None:
    digest = site.serve("v1", delivery="Node", integrity={"recheckInterval": "5s"})
    (pod,) = site.pods()
    (process,) = processes_of([pod], b"inference_server")
    weights = Path(f"/proc/{process}/root/models/model.onnx_data")
    inode = weights.stat().st_ino
    (node,) = edge_nodes(site.bed)
    (blob,) = [path for path in node.store.glob("blobs/sha256/*") if path.stat().st_ino == inode]
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 0x10]))

    def replaced() -> bool:
        return all(it["metadata"]["uid"] != pod["metadata"]["uid"] for it in site.pods()) and bool(
            site.pods()
        )

    site.kube.until(replaced, "the pod to be replaced", timeout=120)
    site.await_condition("Ready", "True", "Serving")
    events = site.kube.list("events", site.namespace)
    assert any(event["reason"] == "TamperDetected" for event in events)
    await_held(site, digest)
    answers_like(site, magika_model.release("v1"))


def test_a_killed_agent_goes_on_where_it_was_and_mounts_stay(site: Site) -> None:
    old = site.serve("v1", sequence=1, delivery="Node")
    (before,) = site.pods()
    (node,) = edge_nodes(site.bed)
    node.kill_agent()
    answers_like(site, magika_model.release("v1"))
    new = site.publish("v2", sequence=2)
    site.await_alone(new)
    assert held(site, old)["state"] == "Ready"
    assert before["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in site.pods()}
    answers_like(site, magika_model.release("v2"))


def test_credentials_reach_the_agent_sealed_and_nobody_else(site: Site) -> None:
    private = site.bed.private_registry
    assert private is not None
    site.policy(name="private", match={"images": [f"{private.host}/**"]})
    reference = f"{site.namespace}/detector:stable"
    publisher = private.publisher(site.publisher.folder)
    digest = publisher.publish(magika_model.release("v1"), reference, version="v1", key=site.key)
    site.kube.apply(private.pull_secret("private-registry", site.namespace))
    site.apply(
        image=f"{private.host}/{reference}", pullSecrets=[{"name": "private-registry"}], delivery="Node"
    )
    site.await_active(digest)
    everything = json.dumps(site.kube.list("edgenodes")) + site.bed.agent_log() + site.bed.operator_log()
    assert private.password not in everything
    assert site.bed.agents_may("get", "secrets", site.namespace) is False
