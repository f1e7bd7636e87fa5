"""The node's store: what is installed, what a reboot and a rotten bit do to it, what is collected and what is not."""

import json
import os
import stat
from pathlib import Path

import pytest

from edgemodel.artifact.manifest import SAMPLES_PATH
from edgemodel.errors import Refused, Stalled, Transient
from edgemodel.node.installed import key_of
from edgemodel.node.recheck import recheck
from edgemodel.node.store import Held, NodeStore
from tests.unit.artifact.artifacts import OTHER_KEY, layer
from tests.unit.node.node_world import blob_requests, graph, node, publish, release, tree, weights

SHARED = weights(70_000, "shared")


def model(simulator, number: int, own: bytes = b"", name: str = "model.onnx"):
    files = {name: graph(number), "weights/model.data": own or SHARED}
    return publish(simulator, files, release=release(number), tag=f"v{number}")


async def test_an_installed_model_is_readable_by_all_and_writable_by_nobody(here, simulator):
    published = model(simulator, 1)
    brought = await here.bring(published)
    directory = here.store.installed(published.manifest.digest)
    assert directory == brought.directory == here.store.root / "models" / published.manifest.digest.hex
    modes = {
        path.relative_to(directory).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in directory.rglob("*")
    }
    assert modes == {"model.onnx": 0o444, "weights": 0o555, "weights/model.data": 0o444, "model.json": 0o444}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o555
    assert stat.S_IMODE(here.store.root.stat().st_mode) == 0o700
    assert json.loads((directory / "model.json").read_text())["digest"] == published.manifest.digest


async def test_a_shared_layer_is_kept_and_downloaded_once(here, simulator):
    first, second = model(simulator, 1), model(simulator, 2)
    one = await here.bring(first)
    two = await here.bring(second)
    inodes = {inode(each.directory / "weights/model.data") for each in (one, two)}
    assert len(inodes) == 1
    assert len(blob_requests(simulator, SHARED)) == 1
    assert two.downloaded == len(graph(2))
    assert here.store.used() < len(SHARED) + 30_000


async def test_golden_samples_lie_beside_the_model_as_one_file_that_versions_share(here, simulator):
    samples = b"not unpacked, so anything will do" * 100
    one, two = [
        publish(
            simulator,
            {"model.onnx": graph(number), SAMPLES_PATH: samples},
            release=release(number),
            tag=f"v{number}",
        )
        for number in (1, 2)
    ]
    places = [(await here.bring(version)).directory / SAMPLES_PATH for version in (one, two)]
    assert [place.read_bytes() for place in places] == [samples, samples]
    assert len({inode(place) for place in places}) == 1
    assert len(blob_requests(simulator, samples)) == 1
    assert stat.S_IMODE(places[0].parent.stat().st_mode) == 0o555
    assert json.loads((places[0].parent.parent / "model.json").read_text())["file"] == "model.onnx"
    flip(here.store.blobs.path(layer(samples).digest))
    later = here.rebooted("second")
    assert ((await later.bring(two)).directory / SAMPLES_PATH).read_bytes() == samples, (
        "altered, so fetched again"
    )
    assert later.store.installed(one.manifest.digest) is None


async def test_two_entry_files_of_one_artifact_are_two_directories(here, simulator):
    published = publish(simulator, {"a.onnx": graph(1), "b.onnx": graph(2)})
    digest = published.manifest.digest
    with pytest.raises(Stalled) as caught:
        await here.bring(published)
    assert caught.value.reason == "AmbiguousModelFile"
    assert not blob_requests(simulator, graph(1))
    a, b = await here.bring(published, "a.onnx"), await here.bring(published, "b.onnx")
    assert (a.directory.name, b.directory.name) == (key_of(digest, "a.onnx"), key_of(digest, "b.onnx"))
    assert json.loads((b.directory / "model.json").read_text())["file"] == "b.onnx"
    assert here.store.installed(digest) is None


async def test_nothing_that_was_refused_is_installed(here, simulator):
    published = publish(simulator, {"model.onnx": graph(1)}, key=OTHER_KEY)
    with pytest.raises(Refused):
        await here.bring(published)
    assert here.store.installed(published.manifest.digest) is None
    assert not blob_requests(simulator, graph(1))


async def test_after_a_reboot_a_model_is_hashed_before_it_is_installed_and_needs_no_registry(here, simulator):
    published = model(simulator, 1)
    directory = (await here.bring(published)).directory
    before = inode(directory)
    assert here.restarted().store.installed(published.manifest.digest) == directory
    later = here.rebooted("second")
    assert later.store.installed(published.manifest.digest) is None
    asked = len(simulator.requests)
    brought = await later.bring(published)
    assert len(simulator.requests) == asked
    assert (brought.kind, brought.downloaded) == ("", 0)
    assert later.store.installed(published.manifest.digest) == directory
    assert inode(directory) == before


async def test_what_rotted_while_the_node_was_off_is_fetched_again(here, simulator):
    published = model(simulator, 1)
    await here.bring(published)
    flip(here.store.blobs.path(layer(SHARED).digest))
    later = here.rebooted("second")
    directory = (await later.bring(published)).directory
    assert (directory / "weights/model.data").read_bytes() == SHARED
    assert len(blob_requests(simulator, SHARED)) == 2


async def test_archives_are_unpacked_and_looked_through_after_a_reboot(here, simulator, tmp_path):
    published = archive_of(simulator, tmp_path, {"model.onnx": graph(1), "deep/down/labels.txt": b"cat\n"})
    directory = (await here.bring(published)).directory
    assert (directory / "deep/down/labels.txt").read_bytes() == b"cat\n"
    before = inode(directory)
    later = here.rebooted("second")
    assert inode((await later.bring(published)).directory) == before
    flip(directory / "model.onnx")
    assert later.store.installed(published.manifest.digest) is None
    restored = (await later.bring(published)).directory
    assert (restored / "model.onnx").read_bytes() == graph(1)
    assert inode(restored) != before


def archive_of(simulator, tmp_path: Path, files: dict[str, bytes]):
    import io
    import tarfile

    from edgemodel.artifact.manifest import Descriptor, ModelFile, build_config, build_manifest
    from tests.unit.artifact.artifacts import REPOSITORY, put

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    described = layer(packed.getvalue(), "application/vnd.cncf.model.weight.v1.tar")
    config = build_config(release(1), [described.digest])
    for content in (packed.getvalue(), config):
        simulator.add_blob(REPOSITORY, content)
    config_layer = Descriptor("application/vnd.cncf.model.config.v1+json", layer(config).digest, len(config))
    manifest = build_manifest([ModelFile("model.tar", described, "tar")], config_layer, release(1))
    return put(simulator, manifest)


def inode(path: Path) -> int:
    return path.stat().st_ino


def flip(path: Path, *, quietly: bool = False) -> None:
    """Change one byte under the same inode; quietly: as a disk does it, with no new time of change."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)
        file.seek(before.st_size // 2)
        file.write(bytes([byte[0] ^ 1]))
    if quietly:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("quietly", [True, False], ids=["by the disk", "by somebody"])
async def test_a_flipped_bit_is_found_takes_the_model_down_and_is_mended_in_new_files(
    here, simulator, quietly
):
    first, second, other = model(simulator, 1), model(simulator, 2), model(simulator, 3, weights(50_000))
    directory = (await here.bring(first)).directory
    await here.bring(second)
    await here.bring(other)
    assert await recheck(here.store, first.manifest.digest, bytes_per_second=None) == []
    mapped = (directory / "weights/model.data").open("rb")
    flip(directory / "weights/model.data", quietly=quietly)
    assert await recheck(here.store, first.manifest.digest, bytes_per_second=None) == [layer(SHARED).digest]
    # Both models have the layer.
    assert here.store.installed(first.manifest.digest) is None
    assert here.store.installed(second.manifest.digest) is None
    assert here.store.installed(other.manifest.digest) is not None
    again = (await here.bring(first)).directory
    assert (again / "weights/model.data").read_bytes() == SHARED
    with mapped:
        # What runs keeps its own until it is drained.
        assert os.fstat(mapped.fileno()).st_ino != (again / "weights/model.data").stat().st_ino
        assert len(mapped.read()) == len(SHARED)


async def test_what_was_taken_down_stays_while_it_is_mounted(here, simulator):
    published = model(simulator, 1)
    directory = (await here.bring(published)).directory
    here.store.forget(published.manifest.digest)
    (aside,) = (here.store.root / "aside").iterdir()
    here.store.collect(set(), {aside})
    assert (aside / "weights/model.data").read_bytes() == SHARED
    assert not directory.exists()
    here.store.collect(set(), set())
    assert not [name for name in tree(here.store.root) if not name.startswith(".")]


async def test_over_budget_the_least_recently_used_that_nobody_holds_goes(here, simulator):
    models = [model(simulator, number, weights(50_000, str(number))) for number in range(1, 6)]
    digests = [published.manifest.digest for published in models]
    directories = [(await here.bring(published)).directory for published in models]
    for age, digest in zip((1, 5, 4, 3, 2), digests, strict=True):
        os.utime(here.store.root / "artifacts" / f"{digest.hex}.json", (1e9 - age, 1e9 - age))
    here.store.touch(digests[3])
    here.store.budget = 140_000
    evicted = here.store.collect({digests[1]}, {directories[2]})
    assert evicted == [digests[4], digests[0], digests[3]]
    assert [here.store.installed(digest) is not None for digest in digests] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert here.store.used() <= 140_000
    # Pins outweigh the budget.
    here.store.budget = 10
    assert here.store.collect(set(digests), set()) == []
    assert here.store.installed(digests[1]) is not None


async def test_a_shared_layer_stays_as_long_as_one_model_has_it(here, simulator):
    first, second = model(simulator, 1), model(simulator, 2)
    await here.bring(first)
    await here.bring(second)
    here.store.budget = 1
    assert here.store.collect({second.manifest.digest}, set()) == [first.manifest.digest]
    assert (here.store.installed(second.manifest.digest) / "weights/model.data").read_bytes() == SHARED


async def test_room_is_made_for_what_comes_and_a_full_budget_says_what_would_help(here, simulator):
    old, new = (model(simulator, number, weights(100_000, str(number))) for number in (1, 2))
    here.store.budget = 130_000
    await here.bring(old)
    with pytest.raises(Transient) as caught:
        await here.bring(new)
    assert caught.value.reason == "DiskFull"
    assert "budget of 130000" in caught.value.message
    assert not blob_requests(simulator, weights(100_000, "2"))
    here.store.held = lambda: Held(frozenset({new.manifest.digest}))
    await here.bring(new)
    assert here.store.installed(old.manifest.digest) is None


async def test_leftovers_go_but_not_what_is_on_its_way(here, simulator):
    published = model(simulator, 1)
    await here.bring(published)
    clean = tree(here.store.root)
    blobs = here.store.blobs.path(layer(SHARED).digest).parent
    stray = layer(b"stray").digest
    (blobs / stray.hex).write_bytes(b"stray")
    (blobs / f"{stray.hex}.abc.link").write_bytes(b"stray")
    (blobs / f"{layer(b'beginning').digest.hex}.partial").write_bytes(b"beg")
    (here.store.root / "staging" / "half").mkdir(parents=True)
    (here.store.root / "staging" / "half" / "model.onnx").write_bytes(b"half")
    (here.store.root / "models" / ("0" * 64)).mkdir()
    (here.store.root / "models" / ("0" * 64) / "model.onnx").write_bytes(b"nobody's")
    (here.store.root / "artifacts" / f"{'1' * 64}.json").write_text("rubbish")
    with here.store.expecting(stray):
        async with here.store.blobs.writing(layer(b"beginning")) as writer:
            assert writer is not None
            here.store.collect(set(), set())
            assert (blobs / stray.hex).exists()
            assert (blobs / f"{layer(b'beginning').digest.hex}.partial").exists()
    here.store.collect(set(), set())
    assert tree(here.store.root) == clean


async def test_what_nobody_refers_to_is_given_time(simulator, tmp_path):
    async with node(simulator, tmp_path, grace=3600.0) as here:
        await here.bring(model(simulator, 1))
        stray = here.store.blobs.path(layer(b"stray").digest)
        stray.write_bytes(b"stray")
        here.store.collect(set(), set())
        assert stray.exists()
        os.utime(stray, (1, 1))
        here.store.collect(set(), set())
        assert not stray.exists()


def test_without_a_budget_the_disk_stays_a_fifth_empty(tmp_path):
    store = NodeStore(tmp_path / "store", boot="first")
    usage = store.usage()
    disk = os.statvfs(tmp_path)
    total, taken = disk.f_blocks * disk.f_frsize, (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    expected = max(int(total * 0.8) - taken, 0)
    assert abs(usage.budget - expected) < 1 << 30  # others write meanwhile
    assert usage.used == 0
