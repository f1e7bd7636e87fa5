"""Memory of this process that is in RAM, as the kernel counts it, and how to give back what is free."""

import ctypes
import gc
import os
from pathlib import Path


def resident_bytes() -> int:
    """Return the resident memory, pages shared with other processes included."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")  # 16 KiB on a Raspberry Pi 5


def give_back() -> None:
    """Hand free pages back to the kernel, those of unreachable cycles included: what grows next is to be its own.

    A model's slot and its scheduler know each other, so a session goes only when cycles are looked for; and the
    allocator keeps what was freed unless it is asked.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
    if trim is not None:
        trim(0)
