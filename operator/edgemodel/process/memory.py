"""Keeps the process small.

Tells glibc's allocator to give memory back, the collector what will live for ever, and the kernel which pages of libraries
are of no more use. These are a third of an agent at rest: code that ran once, at the start, and its neighbours.

By default glibc lets its threshold for returning large blocks grow to 32 MiB; each TLS connection's buffer
of 256 KiB, freed, then stays with the process. The figures stand in ``docs/adr/0002-kubernetes-client.md``.
"""

import ctypes
import gc
import re
from collections.abc import Iterator
from pathlib import Path

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_BLOCK = 128 * 1024
# sys/mman.h
_MADV_DONTNEED = 4

_MAPPING = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<permissions>\S{4}) [0-9a-f]+ \S+ (?P<inode>\d+) *(?P<path>.*)"
)
"""First line of a mapping in smaps (proc_pid_smaps(5))."""


def return_what_is_freed() -> bool:
    """Fix the allocator's thresholds; False where the C library is not glibc, which then does as it likes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        mallopt(option, value) == 1
        for option, value in ((_M_MMAP_THRESHOLD, _BLOCK), (_M_TRIM_THRESHOLD, _BLOCK), (_M_ARENA_MAX, 2))
    )


def settle() -> None:
    """Call once all is loaded: what exists now is left out of collections and of the heap's free space."""
    gc.collect()
    gc.freeze()
    give_back()


def give_back() -> int:
    """Return to the system what is free, and pages of files that can be read again; call when there is nothing to do.

    Returns:
        Bytes of files that were mapped and are no longer. What is used again comes back from the page cache, by itself.
    """
    libc = ctypes.CDLL(None)
    trim = getattr(libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        text = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return 0  # no Linux, or nobody may look
    returned = 0
    for start, end, resident in unchanged_files(text):
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED) == 0:
            returned += resident
    return returned


def unchanged_files(smaps: str) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and resident bytes of the mappings of programs and libraries that hold nothing but their files.

    Not one that may be written, and not one in which a page has ever been (relocations, before it was made read-only):
    that page would be lost. Nor other files' mappings: a thread could end one meanwhile, and memory be in its place.
    """
    mappings = list(_mappings(smaps))
    programs = {one["path"] for one in mappings if "x" in one["permissions"] and one["inode"] != "0"}
    for one in mappings:
        changed = one.get("Anonymous", "?") != "0 kB" or one.get("Swap", "?") != "0 kB"
        if one["path"] in programs and "w" not in one["permissions"] and not changed:
            resident = int(one["Rss"].removesuffix(" kB")) * 1024
            if resident:
                yield int(one["start"], 16), int(one["end"], 16), resident


def _mappings(smaps: str) -> Iterator[dict[str, str]]:
    mapping: dict[str, str] = {}
    for line in smaps.splitlines():
        if found := _MAPPING.fullmatch(line):
            if mapping:
                yield mapping
            mapping = found.groupdict()
        else:
            name, _, value = line.partition(":")
            mapping[name] = value.strip()
    if mapping:
        yield mapping
