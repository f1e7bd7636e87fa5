"""A real model of 91 MB by delta: MiniLM-L6, its last layer changed as fine-tuning of that layer alone changes it."""

from pathlib import Path

import numpy as np

from testbed import minilm_model
from testbed.edge_nodes import edge_nodes
from tests.e2e.conftest import Site

LINK = 200e6
"""Bits a second; at the machine's own speed the whole file would be there sooner, and the agent would take that."""


def embeddings(site: Site) -> list[np.ndarray]:
    """Return what the Service answers to the sentences."""
    bodies = (minilm_model.request(sentence) for sentence in minilm_model.SENTENCES)
    return [minilm_model.embedding(site.bed.infer(site.url("encoder"), "encoder", body)) for body in bodies]


def test_a_retrained_last_layer_is_all_that_a_node_fetches(site: Site, tmp_path: Path) -> None:
    weights = minilm_model.weights()
    old = minilm_model.with_weights_inside(tmp_path / "old" / "model.onnx", weights)
    new = minilm_model.with_weights_inside(
        tmp_path / "new" / "model.onnx", minilm_model.last_layer_nudged(weights)
    )
    with site.bed.slow_registry(rate=LINK) as link:
        site.publish(old, name="encoder", sequence=1)
        site.policy(match={"images": [f"{link.address}/{site.namespace}/**"]})
        site.apply("encoder", image=f"{link.address}/{site.namespace}/encoder:stable", delivery="Node")
        site.await_condition("Ready", "True", "Serving", name="encoder")
        for told, right in zip(embeddings(site), minilm_model.answers(old), strict=True):
            np.testing.assert_allclose(told, right, atol=1e-6)
        before = link.received
        digest = site.publish(new, name="encoder", sequence=2, more=("--delta-from", site.image("encoder")))
        site.await_alone(digest, "encoder")
        (node,) = edge_nodes(site.bed)
        came = node.held(site.namespace, digest)
        assert came["kind"] == "Delta"
        assert came["savedBytes"] > 0.9 * new.stat().st_size
        assert link.received - before < 0.1 * new.stat().st_size
        for told, right, was in zip(
            embeddings(site), minilm_model.answers(new), minilm_model.answers(old), strict=True
        ):
            np.testing.assert_allclose(told, right, atol=1e-6)
            assert np.abs(told - was).max() > 1e-5
