"""A patch is applied in a child that can break nothing: bytes come through, and everything else is one refusal."""

import asyncio
import os
import time

import hdiffpatch
import numpy as np
import pytest
from backports import zstd

from edgemodel.artifact.delta import codec, process, windows
from edgemodel.artifact.delta.base import FileBytes
from edgemodel.artifact.delta.layout import Header, fingerprint, write_header
from edgemodel.artifact.delta.tensors import tensors_of
from edgemodel.errors import Refused
from tests.unit.artifact.delta.models import safetensors, trained, weights
from tests.unit.artifact.delta.test_refusals import window

pytestmark = pytest.mark.process


@pytest.fixture
def pair(tmp_path):
    before = weights(count=700_000)
    old = safetensors(tmp_path / "old.safetensors", [("w", "F32", before)])
    new = safetensors(tmp_path / "new.safetensors", [("w", "F32", trained(before))])
    codec.encode(
        "ulp", old, new, tmp_path / "patch",
        old_tensors=tensors_of(old, beside={}), new_tensors=tensors_of(new, beside={}),
    )  # fmt: skip
    return old, new, tmp_path / "patch"


async def test_the_file_comes_through_in_large_pieces(pair):
    old, new, patch = pair
    pieces = []
    await process.apply_in_child(old, patch, lambda p: pieces.append(bytes(p)), size=new.stat().st_size)
    assert b"".join(pieces) == new.read_bytes()
    assert all(len(piece) >= 256 << 10 for piece in pieces[:-1])


async def test_a_codec_without_a_base_needs_none(pair, tmp_path):
    _, new, _ = pair
    codec.encode("planes", None, new, tmp_path / "planes", new_tensors=tensors_of(new, beside={}))
    out = bytearray()
    await process.apply_in_child(None, tmp_path / "planes", out.extend, size=new.stat().st_size)
    assert bytes(out) == new.read_bytes()


async def test_a_refusal_is_told_in_its_own_words(pair):
    old, new, patch = pair
    patch.write_bytes(patch.read_bytes()[:-1])
    with pytest.raises(
        Refused, match=r"^DeltaInvalid: delta refused: byte \d+: expected \d+ bytes of plane, found \d+"
    ):
        await process.apply_in_child(old, patch, len, size=new.stat().st_size)


async def test_another_size_is_refused(pair):
    old, new, patch = pair
    with pytest.raises(Refused, match="header new: expected a patch to"):
        await process.apply_in_child(old, patch, len, size=new.stat().st_size - 1)


async def test_a_child_that_needs_more_memory_than_it_may_is_refused(pair):
    old, new, patch = pair
    with pytest.raises(Refused) as refusal:
        await process.apply_in_child(old, patch, len, size=new.stat().st_size, memory_bytes=64 << 20)
    assert refusal.value.reason == "DeltaInvalid"


async def test_a_child_that_takes_too_long_is_killed(pair, tmp_path):
    """The base is a pipe that nobody writes to: the child waits for ever."""
    _, new, patch = pair
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    with pytest.raises(Refused, match=r"within 1 s, found it still running"):
        await process.apply_in_child(tmp_path / "pipe", patch, len, size=new.stat().st_size, seconds=0.6)
    assert time.monotonic() - began < 5


async def test_cancelling_ends_the_child(pair, tmp_path):
    _, new, patch = pair
    os.mkfifo(tmp_path / "pipe")
    task = asyncio.ensure_future(
        process.apply_in_child(tmp_path / "pipe", patch, len, size=new.stat().st_size)
    )
    await _child(patch)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _children(patch)


async def test_what_the_receiver_raises_is_raised_and_ends_the_child(pair):
    old, new, patch = pair

    def full(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await process.apply_in_child(old, patch, full, size=new.stat().st_size)
    assert not _children(patch)


async def test_a_missing_base_is_refused(pair, tmp_path):
    _, new, patch = pair
    with pytest.raises(Refused, match="No such file"):
        await process.apply_in_child(tmp_path / "gone", patch, len, size=new.stat().st_size)


async def test_the_child_has_nothing_of_our_environment(pair, tmp_path, monkeypatch):
    _, new, patch = pair
    monkeypatch.setenv("REGISTRY_PASSWORD", "hunter2")
    os.mkfifo(tmp_path / "pipe")
    task = asyncio.ensure_future(
        process.apply_in_child(tmp_path / "pipe", patch, len, size=new.stat().st_size)
    )
    child = await _child(patch)
    try:
        with open(f"/proc/{child}/environ", "rb") as file:  # noqa: ASYNC230, PTH123 - procfs
            environment = file.read()
        assert b"hunter2" not in environment
        assert b"OPENBLAS_NUM_THREADS=1" in environment
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("name", ["patch-from", "hdiff"])
async def test_a_window_as_large_as_may_be_fits_into_memory(name, tmp_path):
    """The most that a decoder holds: a base and a window of the largest size."""
    most = windows.HDIFF_WHOLE if name == "hdiff" else windows.WHOLE
    data = np.random.default_rng(1).integers(0, 256, most - 100, np.uint8).tobytes()
    (tmp_path / "old").write_bytes(data)
    if name == "hdiff":
        changed = data[:1000] + b"new" + data[1000:]
        (tmp_path / "new").write_bytes(changed)
        diff = zstd.compress(hdiffpatch.diff(data, changed, None, validate=False))
        with (tmp_path / "patch").open("wb") as out, FileBytes(tmp_path / "old") as old:
            write_header(out, Header("hdiff", len(changed), len(data), fingerprint(old)))
            out.write(window(2, 0, len(data), len(changed), diff))
    else:
        changed = data[:1000] + b"new" + data[1000:]
        (tmp_path / "new").write_bytes(changed)
        codec.encode(name, tmp_path / "old", tmp_path / "new", tmp_path / "patch")
    out = bytearray()
    await process.apply_in_child(tmp_path / "old", tmp_path / "patch", out.extend, size=len(changed))
    assert bytes(out) == changed


async def _child(patch):
    """The process that was given this patch, once it is there."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if found := _children(patch):
            return found[0]
        await asyncio.sleep(0.01)
    raise AssertionError("no child within 10 s")


def _children(patch):
    """Processes of ours that were given this patch."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - procfs
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:  # noqa: PTH123
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if str(patch).encode() in words:
                found.append(int(entry))
    return found
