"""Real deltas, rebuilt in the real child process, into the node's store."""

from pathlib import Path

import pytest

from edgemodel.artifact.delta import codec
from edgemodel.node.patching import apply_delta
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import layer
from tests.unit.node.node_world import (
    Node,
    attach_delta,
    blob_requests,
    graph,
    node,
    publish,
    release,
    weights,
)

pytestmark = pytest.mark.process

SIZE = 900 << 10  # too little to learn from how fast the link is: then bytes alone decide
OLD = weights(SIZE, "old")
NEW = OLD[: SIZE // 2] + weights(1000, "new") + OLD[SIZE // 2 + 1000 :]


@pytest.fixture
async def here(tmp_path):
    async with RegistrySimulator() as simulator, node(simulator, tmp_path / "store", grace=0.0) as here:
        here.transfers.patcher._apply = apply_delta
        yield here


def made(tmp_path: Path) -> bytes:
    old, new, out = tmp_path / "old", tmp_path / "new", tmp_path / "patch"
    old.write_bytes(OLD)
    new.write_bytes(NEW)
    codec.encode("patch-from", old, new, out)
    return out.read_bytes()


async def updated(here: Node, patch: bytes):
    old = publish(here.simulator, {"model.onnx": graph(1), "w.data": OLD}, release=release(1), tag="v1")
    new = publish(here.simulator, {"model.onnx": graph(2), "w.data": NEW}, release=release(2), tag="v2")
    attach_delta(here.simulator, new, {(OLD, NEW): patch})
    await here.bring(old)
    return await here.bring(new)


async def test_a_file_is_rebuilt_by_a_real_delta(here, tmp_path):
    patch = made(tmp_path)
    brought = await updated(here, patch)
    assert (brought.kind, brought.fallback_reason) == ("Delta", "")
    assert brought.downloaded == len(patch) + len(graph(2)) < 10_000
    assert (brought.directory / "w.data").read_bytes() == NEW
    assert not blob_requests(here.simulator, NEW)


@pytest.mark.parametrize("place", [0, 30, -200], ids=["its name", "its head", "its data"])
async def test_a_spoiled_one_is_done_without(here, tmp_path, place):
    patch = bytearray(made(tmp_path))
    patch[place] ^= 0x55
    brought = await updated(here, bytes(patch))
    assert brought.kind == "Full"
    assert layer(bytes(patch)).digest.short in brought.fallback_reason
    assert (brought.directory / "w.data").read_bytes() == NEW


async def test_one_that_was_cut_short_is_done_without(here, tmp_path):
    patch = made(tmp_path)
    brought = await updated(here, patch[:-40])
    assert brought.kind == "Full"
    assert (brought.directory / "w.data").read_bytes() == NEW
