"""Bundles that were carried to a node: what is in them needs no download, and is believed no more than one."""

from dataclasses import replace

from edgemodel.artifact.bundle import create
from edgemodel.artifact.policy import TrustedKey
from edgemodel.artifact.registry import Registry
from edgemodel.node import imports
from tests.unit.artifact.artifacts import OTHER_KEY, POLICY, publish
from tests.unit.node.node_alone import FILES
from tests.unit.node.site import entry, spec


async def carried(node, registry, published, tmp_path):
    """Put a bundle of a model where the node's agent looks, and forget that it was asked for."""
    file = tmp_path / "bundle.tar"
    await create(Registry(node.connections), [published.pinned], file, tmp_path / "scratch")
    placed = imports.place(file, node.root)
    registry.requests.clear()
    return placed


async def test_a_model_that_was_carried_here_comes_without_a_registry(node, registry, tmp_path):
    published = publish(registry, FILES)
    placed = await carried(node, registry, published, tmp_path)
    node.take(spec(entry(published)))
    line = await node.state(published, "Ready")
    assert (line.kind, line.reason, line.saved_bytes) == ("Imported", "Imported", 0)
    assert registry.requests == []
    directory = await node.mount(published)
    for path, content in FILES.items():
        assert (directory / path).read_bytes() == content
    digest = published.pinned.digest
    assert imports.drop_used(node.root, {digest}, {digest}) == [placed]


async def test_a_carried_model_needs_no_window(node, registry, tmp_path):
    published = publish(registry, FILES)
    await carried(node, registry, published, tmp_path)
    night = {"schedule": "0 2 * * *", "duration": "1h", "timeZone": "UTC"}  # the test's clock says noon
    node.take(spec(entry(published, role="Candidate", window=night)))
    assert (await node.state(published, "Ready")).kind == "Imported"


async def test_what_was_carried_here_is_judged_like_a_download(node, registry, tmp_path):
    published = publish(registry, FILES, key=OTHER_KEY)
    await carried(node, registry, published, tmp_path)
    node.take(spec(entry(published)))
    assert (await node.state(published, "Failed")).reason == "KeyUnknown"
    assert list((node.root / "models").glob("*")) == []
    both = replace(POLICY, keys=(*POLICY.keys, TrustedKey("other", OTHER_KEY.public)))
    node.take(spec(entry(published), policies=(both,)))
    assert (await node.state(published, "Ready")).kind == "Imported"


async def test_a_bundle_that_rotted_on_the_node_is_passed_over_for_the_registry(node, registry, tmp_path):
    published = publish(registry, FILES)
    placed = await carried(node, registry, published, tmp_path)
    content = placed.read_bytes()
    weights = FILES["weights/model.data"]
    at = content.index(weights[:4096])
    placed.chmod(0o600)
    placed.write_bytes(content[:at] + b"x" + content[at + 1 :])
    node.take(spec(entry(published)))
    assert (await node.state(published, "Ready")).kind == "Full"
    assert ((await node.mount(published)) / "weights/model.data").read_bytes() == weights


async def test_a_bundle_of_another_model_changes_nothing_and_stays(node, registry, tmp_path):
    wanted, other = publish(registry, FILES), publish(registry, {"model.onnx": b"other" * 100}, tag="other")
    placed = await carried(node, registry, other, tmp_path)
    node.take(spec(entry(wanted)))
    assert (await node.state(wanted, "Ready")).kind == "Full"
    digest = wanted.pinned.digest
    assert imports.drop_used(node.root, {digest}, {digest}) == []
    assert placed.exists()
