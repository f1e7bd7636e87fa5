"""Bringing a model to a node: by delta or whole, once, resumed, paced; what goes wrong and what is said of it."""

import asyncio

import pytest

from edgemodel.artifact.registry import Registry
from edgemodel.artifact.verify import examine
from edgemodel.errors import Refused, Transient
from edgemodel.node.transfer import SMALLEST_FOR_DELTA
from tests.unit.artifact.artifacts import layer
from tests.unit.node.node_world import (
    Node,
    attach_delta,
    blob_requests,
    graph,
    patch,
    publish,
    release,
    tree,
    weights,
)

SIZE = SMALLEST_FOR_DELTA + 1000
KEPT = SIZE - 5000
OLD = weights(SIZE, "old")
NEW = OLD[:KEPT] + weights(SIZE - KEPT, "new")
PATCH = patch(NEW, KEPT)


def versions(simulator, made: bytes | None = PATCH):
    old = publish(simulator, {"model.onnx": graph(1), "w.data": OLD}, release=release(1), tag="v1")
    new = publish(simulator, {"model.onnx": graph(2), "w.data": NEW}, release=release(2), tag="v2")
    if made is not None:
        attach_delta(simulator, new, {(OLD, NEW): made})
    return old, new


async def test_a_new_version_comes_by_delta_and_leaves_nothing_of_it(here, simulator):
    old, new = versions(simulator)
    await here.bring(old)
    brought = await here.bring(new)
    assert (brought.kind, brought.fallback_reason) == ("Delta", "")
    assert brought.downloaded == len(graph(2)) + len(PATCH)
    assert brought.saved == SIZE - len(PATCH)
    assert (brought.directory / "w.data").read_bytes() == NEW
    assert not blob_requests(simulator, NEW)
    assert not here.store.blobs.path(layer(PATCH).digest).exists()
    files = tree(here.store.root)
    here.store.collect({old.manifest.digest, new.manifest.digest}, set())
    assert tree(here.store.root) == files


async def test_without_the_base_it_comes_whole(here, simulator):
    _, new = versions(simulator)
    brought = await here.bring(new)
    assert (brought.kind, brought.saved, brought.fallback_reason) == ("Full", 0, "")
    assert not blob_requests(simulator, PATCH)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (b"rubbish", "not a delta"),
        (patch(NEW[:-1] + b"x", KEPT), "expected sha256:"),
        (patch(NEW + b"more", KEPT), "more bytes came"),
        (patch(NEW[:-9], KEPT), "expected sha256:"),
        (patch(NEW, KEPT - 1)[:-1], "expected sha256:"),
    ],
    ids=["rubbish", "other bytes", "too long", "too short", "another base"],
)
async def test_a_delta_that_is_no_good_costs_a_whole_download_and_is_named(here, simulator, made, said):
    old, new = versions(simulator, made)
    await here.bring(old)
    brought = await here.bring(new)
    assert brought.kind == "Full"
    assert said in brought.fallback_reason
    assert layer(made).digest.short in brought.fallback_reason
    assert (brought.directory / "w.data").read_bytes() == NEW
    assert not here.store.blobs.path(layer(made).digest).exists()


@pytest.mark.parametrize("fault", [{"status": 404}, {"corrupt": 3}], ids=["gone", "spoiled on the way"])
async def test_a_delta_that_cannot_be_had_is_done_without(here, simulator, fault):
    old, new = versions(simulator)
    await here.bring(old)
    simulator.fault("GET", str(layer(PATCH).digest), times=None, **fault)
    brought = await here.bring(new)
    assert brought.kind == "Full"
    assert brought.fallback_reason


async def test_referrers_that_cannot_be_listed_cost_nothing_but_the_delta(here, simulator):
    old, new = versions(simulator)
    await here.bring(old)
    examined = await examine(Registry(here.connections), new.pinned)
    here.store.keep(examined)
    simulator.fault("GET", "/referrers/", times=None, status=500)
    brought = await here.bring(new)
    assert (brought.kind, brought.downloaded) == ("Full", len(graph(2)) + SIZE)


async def test_on_a_fast_link_the_whole_is_taken_when_it_is_there_sooner(here, simulator):
    old, new = versions(simulator)
    await here.bring(old)
    here.limiter.rate = 1e12
    here.transfers.patcher.bytes_per_second = 1000.0
    assert (await here.bring(new)).kind == "Full"


async def test_on_a_slow_link_the_delta_is(here, simulator):
    old, new = versions(simulator)
    await here.bring(old)
    here.limiter.rate = 1e6
    assert (await here.bring(new)).kind == "Delta"


async def test_what_is_nearly_here_is_finished_rather_than_patched(here, simulator):
    old, new = versions(simulator)
    await here.bring(old)
    here.store.blobs.partial(layer(NEW).digest).write_bytes(NEW[: SIZE - 100])
    brought = await here.bring(new)
    assert (brought.kind, brought.downloaded) == ("Full", len(graph(2)) + 100)
    assert blob_requests(simulator, NEW)[0].headers["range"] == f"bytes={SIZE - 100}-"


async def test_what_a_killed_agent_left_of_a_rebuilt_file_is_no_hindrance(here, simulator):
    old, new = versions(simulator)
    await here.bring(old)
    here.store.blobs.partial(layer(NEW).digest).write_bytes(b"rubbish" * 1000)
    assert (await here.bring(new)).kind == "Delta"


async def test_a_download_goes_on_where_the_agent_was_stopped(here, simulator):
    _, new = versions(simulator)
    simulator.fault("GET", str(layer(NEW).digest), stall=200_000)
    stopped = asyncio.ensure_future(here.bring(new))
    await arrived(here, simulator.host, 200_000)
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped
    left = here.store.blobs.partial(layer(NEW).digest).stat().st_size
    assert left >= 200_000
    again = here.restarted()
    here.store.collect({new.manifest.digest}, set())
    brought = await again.bring(new)
    assert blob_requests(simulator, NEW)[-1].headers["range"] == f"bytes={left}-"
    assert brought.downloaded <= len(graph(2)) + SIZE - left


async def arrived(here: Node, registry: str, amount: int) -> None:
    async with asyncio.timeout(2):
        while here.transfers.speed(registry)._bytes < amount:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)


async def test_one_download_however_many_ask_and_all_see_it(here, simulator):
    _, new = versions(simulator)
    other = publish(simulator, {"other.onnx": graph(3), "w.data": NEW}, release=release(3), tag="v3")
    brought = await asyncio.gather(*(here.bring(which) for which in (new, new, other, new)))
    assert len(blob_requests(simulator, NEW)) == 1
    assert len(blob_requests(simulator, graph(2))) == 1
    assert sum(each.downloaded for each in brought) == SIZE + len(graph(2)) + len(graph(3))
    assert not here.transfers._turns


async def test_progress_ends_at_the_total_and_names_its_kind(here, simulator):
    old, new = versions(simulator)
    await here.bring(old)
    here.seen.clear()
    await here.bring(new)
    total = SIZE + len(graph(2))
    assert {progress.total for progress in here.seen} == {total}
    assert all(0 <= progress.bytes <= total for progress in here.seen)
    assert (here.seen[-1].state, here.seen[-1].bytes, here.seen[-1].kind) == ("Verifying", total, "Delta")
    assert "Downloading" in {progress.state for progress in here.seen}


async def test_a_registry_that_lies_twice_is_refused_and_nothing_is_installed(here, simulator):
    _, new = versions(simulator, None)
    simulator.fault("GET", str(layer(NEW).digest), times=None, corrupt=70_000)
    with pytest.raises(Refused) as caught:
        await here.bring(new)
    assert caught.value.reason == "DigestMismatch"
    assert here.store.installed(new.manifest.digest) is None
    assert not here.store.has(layer(NEW).digest)


async def test_a_registry_that_stalls_is_given_up_and_what_came_stays(here, simulator):
    _, new = versions(simulator, None)
    simulator.fault("GET", str(layer(NEW).digest), times=None, stall=10_000)
    with pytest.raises(Transient) as caught:
        await here.bring(new)
    assert caught.value.reason == "TransferFailed"
    assert here.store.blobs.partial(layer(NEW).digest).stat().st_size >= 20_000


async def test_a_trickle_is_cut(here, simulator):
    _, new = versions(simulator, None)
    simulator.fault("GET", str(layer(NEW).digest), times=None, trickle=(10, 0.05))
    with pytest.raises(Transient) as caught:
        await here.bring(new)
    assert "bytes/s" in caught.value.message
