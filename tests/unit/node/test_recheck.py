"""Hashing what is on disk again: the right answer, whatever is in the page cache, and that cache left as it was."""

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from edgemodel.artifact.digest import Digest
from edgemodel.node.limiter import Limiter
from edgemodel.node.recheck import PIECE, hash_gently
from tests.unit.node.node_world import weights

PAGES = 3 * PIECE // mmap.PAGESIZE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(weights(3 * PIECE))
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    return path


def drop(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def resident(path: Path) -> list[bool]:
    """Which pages of a file are in memory (mincore(2))."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        flags = (ctypes.c_ubyte * PAGES)()
        view = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mincore(ctypes.byref(view), ctypes.c_size_t(len(mapped)), flags) == 0
        del view
    return [bool(flag & 1) for flag in flags]


@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
async def test_the_hash_is_right_at_any_length(tmp_path, length):
    path = tmp_path / "f"
    path.write_bytes(weights(length))
    for cold in (False, True):
        if cold:
            drop(path)
        found = await hash_gently(path, Limiter())
        assert (found.digest(), found.size) == (Digest.of(weights(length)), length)


async def test_pages_that_only_the_hash_read_leave_again(file):
    drop(file)
    before = resident(file)
    await hash_gently(file, Limiter())
    assert resident(file) == before


async def test_pages_that_were_in_use_stay(file):
    drop(file)
    half = PIECE + PIECE // 2
    handle = os.open(file, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(handle, half, 0)
    os.close(handle)
    await hash_gently(file, Limiter())
    assert all(resident(file)[: half // mmap.PAGESIZE])
