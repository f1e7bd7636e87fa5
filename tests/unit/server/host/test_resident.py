"""Pages of libraries that are given back are read again; what is nowhere else is never given back."""

import pytest

from inference_server.host.resident import give_back, resident_bytes, unchanged_libraries


def mapping(start, permissions, path, *, inode=7, anonymous=0, swap=0):
    first = f"{start:x}-{start + 0x4000:x} {permissions} 00000000 fe:01 {inode}    {path}\n"
    return f"{first}Rss: 8 kB\nAnonymous:    {anonymous} kB\nLazyFree: 0 kB\nSwap:   {swap} kB\nVmFlags: rd\n"


CODE = mapping(0x10000, "r-xp", "/lib/lib one.so.1")


def test_code_and_constants_of_a_library_can_be_read_again():
    constants = mapping(0x20000, "r--p", "/lib/lib one.so.1")
    assert list(unchanged_libraries(CODE + constants)) == [(0x10000, 0x14000), (0x20000, 0x24000)]


@pytest.mark.parametrize(
    "kept",
    [
        mapping(0x20000, "rw-p", "/lib/lib one.so.1"),
        mapping(0x20000, "r--p", "/lib/lib one.so.1", anonymous=4),
        mapping(0x20000, "r--p", "/lib/lib one.so.1", swap=4),
        mapping(0x20000, "r--p", "/models/weights.data"),
        mapping(0x20000, "rw-p", "[heap]", inode=0),
        mapping(0x20000, "r-xp", "[vdso]", inode=0),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_could_be_lost_stays(kept, first):
    text = kept + CODE if first else CODE + kept
    assert list(unchanged_libraries(text)) == [(0x10000, 0x14000)]


def test_this_process_is_smaller_and_goes_on():
    before = resident_bytes()
    give_back()
    assert resident_bytes() < before
