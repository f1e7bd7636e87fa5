"""The store: whole blobs under their digests, resumed, locked, capped; a full disk is an answer."""

import asyncio
import errno
import os
import random
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgemodel.artifact.store import Store, disk_errors
from edgemodel.artifact.transfer import fetch
from edgemodel.errors import Refused, Transient
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.registry_client import at, client, described

CONTENT = random.Random(2).randbytes((5 << 20) + 123)
BLOB = described(CONTENT)


@pytest.fixture
async def simulator():
    async with RegistrySimulator() as simulator:
        simulator.add_blob("models/a", CONTENT)
        yield simulator


@pytest.fixture
async def registry(simulator):
    async with client(simulator) as registry:
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def partial(store: Store) -> Path:
    path = store.path(BLOB.digest)
    return path.with_name(path.name + ".partial")


def leave_partial(store: Store, content: bytes) -> None:
    partial(store).parent.mkdir(parents=True, exist_ok=True)
    partial(store).write_bytes(content)


async def test_a_blob_lands_under_its_digest_read_only(store, registry, simulator):
    assert await fetch(registry, at(simulator), BLOB, store) == len(CONTENT)
    path = store.path(BLOB.digest)
    assert store.path(BLOB.digest).read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o444
    assert not partial(store).exists()


async def test_what_is_here_is_not_fetched_again(store, registry, simulator):
    await fetch(registry, at(simulator), BLOB, store)
    await fetch(registry, at(simulator), BLOB, store)
    assert len(simulator.seen("GET")) == 1


async def test_a_blob_that_rotted_on_disk_is_fetched_again(store, registry, simulator):
    await fetch(registry, at(simulator), BLOB, store)
    path = store.path(BLOB.digest)
    path.chmod(0o600)
    path.write_bytes(CONTENT[:-1] + b"\0")
    await fetch(registry, at(simulator), BLOB, store)
    assert store.path(BLOB.digest).read_bytes() == CONTENT


async def test_a_transfer_is_resumed_behind_what_is_here(store, registry, simulator):
    leave_partial(store, CONTENT[:2_000_000])
    await fetch(registry, at(simulator), BLOB, store)
    assert store.path(BLOB.digest).read_bytes() == CONTENT
    assert simulator.seen("GET")[0].headers["range"] == "bytes=2000000-"


@pytest.mark.parametrize(
    "left", [b"rubbish" * 1000, CONTENT + b"too long", b""], ids=["wrong", "too long", "empty"]
)
async def test_any_leftover_is_harmless(store, registry, simulator, left):
    leave_partial(store, left)
    await fetch(registry, at(simulator), BLOB, store)
    assert store.path(BLOB.digest).read_bytes() == CONTENT


async def test_wrong_bytes_are_fetched_once_more(store, registry, simulator):
    simulator.fault("GET", "/blobs/", corrupt=3_000_000)
    await fetch(registry, at(simulator), BLOB, store)
    assert store.path(BLOB.digest).read_bytes() == CONTENT
    assert len(simulator.seen("GET")) == 2


async def test_wrong_bytes_twice_are_refused_and_not_kept(store, registry, simulator):
    simulator.fault("GET", "/blobs/", times=None, corrupt=3_000_000)
    with pytest.raises(Refused) as caught:
        await fetch(registry, at(simulator), BLOB, store)
    assert caught.value.reason == "DigestMismatch"
    assert not store.path(BLOB.digest).exists()
    assert partial(store).stat().st_size == 0


async def test_progress_adds_up_to_the_size_even_when_it_begins_anew(store, registry, simulator):
    leave_partial(store, b"x" * 1_000_000)
    total = 0

    def count(_descriptor: object, more: int) -> None:
        nonlocal total
        total += more

    await fetch(registry, at(simulator), BLOB, store, count)
    assert total == len(CONTENT)


async def test_one_download_whoever_asks(store, registry, simulator):
    other = Store(store.root)
    came = await asyncio.gather(*(fetch(registry, at(simulator), BLOB, s) for s in (store, other, store)))
    assert sorted(came) == [0, 0, len(CONTENT)]
    assert store.path(BLOB.digest).read_bytes() == CONTENT
    assert len(simulator.seen("GET")) == 1


async def test_a_cancelled_download_leaves_what_came_and_lets_go_of_the_lock(store, registry, simulator):
    simulator.fault("GET", "/blobs/", stall=3_000_000)
    downloading = asyncio.create_task(fetch(registry, at(simulator), BLOB, store))
    async with asyncio.timeout(1):
        while not (partial(store).exists() and partial(store).stat().st_size > 1_000_000):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.005)
    downloading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await downloading
    await fetch(registry, at(simulator), BLOB, store)
    assert store.path(BLOB.digest).read_bytes() == CONTENT
    assert "range" in simulator.seen("GET")[-1].headers


async def test_a_writer_never_goes_beyond_the_size(store):
    async with store.writing(described(b"12345")) as writer:
        writer.write(b"123")
        with pytest.raises(Refused):
            writer.write(b"456")
        assert writer.offset == 3


async def test_a_blob_larger_than_the_disk_is_an_answer(store):
    with pytest.raises(Transient) as caught:
        async with store.writing(described(b"", size=1 << 52)):
            pass
    assert caught.value.reason == "DiskFull"
    assert str(1 << 52) in caught.value.message


async def test_a_disk_that_fills_up_is_an_answer():
    # /dev/full answers every write with ENOSPC: the kernel's own full disk.
    handle = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(Transient) as caught, disk_errors(Path("/tmp"), 100):
            os.write(handle, b"x")
    finally:
        os.close(handle)
    assert caught.value.reason == "DiskFull"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_fails_otherwise_says_how(number, tmp_path):
    with pytest.raises(Transient) as caught, disk_errors(tmp_path, 0):
        raise OSError(number, os.strerror(number))
    assert caught.value.reason == "TransferFailed"
    assert os.strerror(number) in caught.value.message


def test_a_symbolic_link_in_place_of_the_partial_file_is_not_followed(store, tmp_path):
    target = tmp_path / "precious"
    target.write_text("keep")
    partial(store).parent.mkdir(parents=True)
    partial(store).symlink_to(target)

    async def write() -> None:
        async with store.writing(BLOB):
            pass

    with pytest.raises(Transient):
        asyncio.run(write())
    assert target.read_text() == "keep"


async def test_what_cannot_be_read_or_written_is_a_typed_error(store, registry, simulator):
    store.path(BLOB.digest).mkdir(parents=True)
    with pytest.raises(Transient) as caught:
        await fetch(registry, at(simulator), BLOB, store)
    assert caught.value.reason == "TransferFailed"
    assert str(store.root) in caught.value.message


async def test_links_share_one_copy_and_replace_what_was_there(store, registry, simulator, tmp_path):
    await fetch(registry, at(simulator), BLOB, store)
    target = store.root / "models" / "m" / "sub" / "model.onnx"
    store.link(BLOB, target)
    store.link(BLOB, target)
    assert target.read_bytes() == CONTENT
    assert target.stat().st_nlink == 2
    assert [entry.name for entry in target.parent.iterdir()] == ["model.onnx"]


@contextmanager
def killed_before(call: str, monkeypatch):
    """A process that dies at a system call, as far as the disk can tell."""

    class Killed(BaseException):
        pass

    def die(*_arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, call, die)
        with pytest.raises(Killed):
            yield


async def test_death_before_the_rename_leaves_no_blob_and_a_good_beginning(
    store, registry, simulator, monkeypatch
):
    async with store.writing(BLOB) as writer:
        writer.write(CONTENT)
        with killed_before("fsync", monkeypatch):
            writer.commit()
    assert not store.path(BLOB.digest).exists()
    assert partial(store).stat().st_mode & 0o200, "who is not root could not open it again"
    await fetch(registry, at(simulator), BLOB, store)
    assert store.path(BLOB.digest).read_bytes() == CONTENT
    assert simulator.seen("GET") == [], "everything was here"


async def test_death_behind_the_rename_leaves_a_blob_that_is_made_read_only(
    store, registry, simulator, monkeypatch
):
    async with store.writing(BLOB) as writer:
        writer.write(CONTENT)
        with killed_before("fchmod", monkeypatch):
            writer.commit()
    assert store.path(BLOB.digest).stat().st_mode & 0o777 == 0o600
    await fetch(registry, at(simulator), BLOB, store)
    assert store.path(BLOB.digest).stat().st_mode & 0o777 == 0o444


async def test_a_link_never_takes_the_place_of_another_file(store, tmp_path):
    for content in (b"one", b"two"):
        async with store.writing(described(content)) as writer:
            writer.write(content)
            writer.commit()
    store.link(described(b"one"), tmp_path / "model.new")
    store.link(described(b"two"), tmp_path / "model")
    long = "n" * 255
    store.link(described(b"two"), tmp_path / long)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert found == {"model.new": b"one", "model": b"two", long: b"two"}


def test_a_full_disk_without_room_for_the_folder_is_an_answer(tmp_path):
    with pytest.raises(Transient) as caught, disk_errors(tmp_path / "not" / "made", 1):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.reason == "DiskFull"
