"""What happens to nodes: one is cut off and misses a version, one loses its power, one loses its agent."""

import json
from pathlib import Path

import pytest

from testbed import magika_model
from testbed.edge_nodes import EdgeNode, edge_nodes
from testbed.installation import Testbed
from testbed.publisher import EDGEMODEL
from testbed.shell import CommandFailed, run
from tests.e2e.conftest import Site


@pytest.fixture(scope="module")
def bed(agents_testbed: Testbed) -> Testbed:
    return agents_testbed


def node_with_the_operator(bed: Testbed) -> EdgeNode:
    names = {pod["spec"]["nodeName"] for pod in bed.operator_pods()}
    return next(node for node in edge_nodes(bed) if node.name in names)


def node_without_the_operator(bed: Testbed) -> EdgeNode:
    home = node_with_the_operator(bed)
    return next(node for node in edge_nodes(bed) if node.name != home.name)


def answers(site: Site, version: str, node: EdgeNode) -> bool:
    """Ask the Service from a node: this machine's way to Services leads over one that may be cut off."""
    content = next(iter(magika_model.SAMPLES.values()))
    body = json.dumps(magika_model.request(content))
    url = f"{site.url()}/v2/models/detector/infer"
    try:
        told = node.inside("curl", "--silent", "--fail", "--max-time", "10", "--data", body, url)
    except CommandFailed:
        return False
    scores = magika_model.scores(json.loads(told))
    return bool(abs(scores - magika_model.expected(version, content)).max() < 1e-5)


def files(node: EdgeNode) -> dict[str, int]:
    """Blobs of a node's store and when each was written."""
    blobs = node.store / "blobs" / "sha256"
    return {path.name: path.stat().st_mtime_ns for path in blobs.iterdir() if path.is_file()}


def test_a_rebooted_node_serves_what_it_holds_without_fetching_it_again(site: Site) -> None:
    node = node_without_the_operator(site.bed)
    here = {"podTemplate": {"nodeSelector": {"kubernetes.io/hostname": node.name}}}
    digest = site.serve("v1", delivery="Node", **here)
    (before,) = site.pods()
    assert before["spec"]["nodeName"] == node.name
    assert answers(site, "v1", node_with_the_operator(site.bed))
    held, agent = files(node), node.agent_pid()
    assert held

    node.reboot()
    site.kube.until(lambda: node.agent_pid() != agent, "the agent to be back", timeout=90)

    def serves_again() -> bool:
        (pod,) = site.pods()
        (status,) = pod["status"]["containerStatuses"]
        return status["ready"] and (
            pod["metadata"]["uid"] != before["metadata"]["uid"] or status["restartCount"]
        )

    site.kube.until(serves_again, "the pod to be back", timeout=90)
    assert answers(site, "v1", node_with_the_operator(site.bed))
    assert files(node) == held
    assert node.held(site.namespace, digest)["state"] == "Ready"


def test_a_node_that_is_cut_off_holds_up_nobody_and_catches_up(site: Site) -> None:
    lost, home = node_without_the_operator(site.bed), node_with_the_operator(site.bed)
    old = site.serve("v1", sequence=1, delivery="Node")
    for node in (lost, home):
        site.kube.until(
            lambda n=node: n.held(site.namespace, old)["state"] == "Ready", f"{node.name} to hold it"
        )  # type: ignore[misc]
    lost.cut()
    try:
        ready = '{.status.conditions[?(@.type=="Ready")].status}'
        site.kube.until(
            lambda: site.kube("get", "node", lost.name, "-o", f"jsonpath={ready}") == "Unknown",
            f"{lost.name} to be missed",
            timeout=90,
        )
        new = site.publish("v2", sequence=2)
        site.await_active(new, timeout=120)
        # Its proxy may be a moment behind the Service.
        site.kube.until(lambda: answers(site, "v2", home), "v2 to answer", timeout=30)
        nodes = site.status()["nodes"]
        assert (nodes["total"], nodes["ready"], nodes["offline"]) == (2, 1, 1), json.dumps(nodes)
        assert not lost.held(site.namespace, new)
    finally:
        lost.join()
    site.kube.until(
        lambda: lost.held(site.namespace, new)["state"] == "Ready", f"{lost.name} to catch up", timeout=120
    )
    site.kube.until(
        lambda: site.status()["nodes"]["ready"] == 2, "both nodes to be counted again", timeout=60
    )


def test_the_kubelet_starts_a_killed_agent_again_and_its_store_stays(site: Site) -> None:
    node = node_without_the_operator(site.bed)
    digest = site.serve("v1", delivery="Node")
    site.kube.until(lambda: node.held(site.namespace, digest)["state"] == "Ready", "the node to hold it")
    held = files(node)
    node.kill_agent()
    assert files(node) == held
    assert answers(site, "v1", node_with_the_operator(site.bed))


def test_a_kubelet_that_restarts_leaves_pods_alone_and_mounts_for_new_ones(site: Site) -> None:
    node, home = node_without_the_operator(site.bed), node_with_the_operator(site.bed)
    here = {"podTemplate": {"nodeSelector": {"kubernetes.io/hostname": node.name}}}
    site.serve("v1", delivery="Node", **here)
    (before,) = site.pods()
    agent = node.agent_pid()

    node.restart_kubelet()
    # A kubelet that has just begun may call a pod unready until it has looked itself.
    site.kube.until(lambda: answers(site, "v1", home), "v1 to answer", timeout=30)
    site.apply(delivery="Node", replicas=2, **here)

    def ready() -> list[bool]:
        return [one["ready"] for pod in site.pods() for one in pod["status"].get("containerStatuses", [])]

    site.kube.until(lambda: ready() == [True, True], "a second pod to have its model", timeout=90)
    (same,) = [pod for pod in site.pods() if pod["metadata"]["uid"] == before["metadata"]["uid"]]
    assert [one["restartCount"] for one in same["status"]["containerStatuses"]] == [0]
    assert node.agent_pid() == agent
    assert answers(site, "v1", home)


def test_a_bundle_that_was_carried_to_a_node_spares_it_the_download(site: Site, tmp_path: Path) -> None:
    node = node_without_the_operator(site.bed)
    here = {"podTemplate": {"nodeSelector": {"kubernetes.io/hostname": node.name}}}
    # Weights that no other test has brought to the node.
    model = magika_model.nudged(tmp_path / "nudged" / "model.onnx", seed=23)
    digest = site.publish(model)
    bundle = tmp_path / "detector.tar"
    run(EDGEMODEL, "bundle", "create", site.image(), "--to", bundle, "--plain-http")
    run(EDGEMODEL, "bundle", "import", bundle, "--store", node.store)
    with site.bed.slow_registry(rate=8e6) as link:
        site.policy(match={"images": [f"{link.address}/{site.namespace}/**"]})
        site.apply(image=f"{link.address}/{site.namespace}/detector:stable", delivery="Node", **here)
        site.await_condition("ArtifactDelivered", "True", "Imported")
        site.await_condition("Ready", "True", "Serving")
        assert node.held(site.namespace, digest)["kind"] == "Imported"
        assert link.received < model.stat().st_size / 10  # manifests and signatures, asked for now and then
    site.kube.until(lambda: not list((node.store / "imports").glob("*.tar")), "the bundle to be cleared away")
