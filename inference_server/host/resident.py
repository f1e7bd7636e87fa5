"""Memory of this process that is in RAM, as the kernel counts it, and how to give back what is free."""

import ctypes
import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path

_MADV_DONTNEED = 4  # sys/mman.h
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) *(.*)$", re.MULTILINE)
"""First line of a mapping in smaps (proc_pid_smaps(5))."""
_CHANGED = re.compile(r"^(?:Anonymous|Swap): +(\d+) kB$", re.MULTILINE)


def resident_bytes() -> int:
    """Return the resident memory, pages shared with other processes included."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")  # 16 KiB on a Raspberry Pi 5


def give_back() -> None:
    """Hand pages back to the kernel: free ones, those of unreachable cycles included, and libraries' that can be read again.

    What grows next is to be its own. A model's slot and its scheduler know each other, so a session goes only when cycles
    are looked for; and the allocator keeps what was freed unless it is asked. Of libraries, most of what importing and
    loading touch is not used again; what is comes back from the page cache by itself.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    trim = getattr(libc, "malloc_trim", None)  # glibc has it, musl does not
    if trim is not None:
        trim(0)
    try:
        smaps = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return  # nobody may look
    for start, end in unchanged_libraries(smaps):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def unchanged_libraries(smaps: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of the mappings of programs and libraries that hold nothing but their files.

    Not one that may be written, and not one in which a page has ever been (relocations, before it was made read-only):
    that page would be lost. Nor other files' mappings: weights are to stay, and a thread could end one meanwhile.

    Args:
        smaps: Content of `/proc/self/smaps`.
    """
    found = list(_MAPPING.finditer(smaps))
    programs = {one[5] for one in found if "x" in one[3] and one[4] != "0"}
    for one, following in zip(found, [*found[1:], None], strict=True):
        told = smaps[one.end() : following.start() if following else None]
        if one[5] in programs and "w" not in one[3] and _CHANGED.findall(told) == ["0", "0"]:
            yield int(one[1], 16), int(one[2], 16)
