"""Keeps the process small.

Tells glibc's allocator to give memory back, and the collector what will live for ever.

By default glibc lets its threshold for returning large blocks grow to 32 MiB; each TLS connection's buffer
of 256 KiB, freed, then stays with the process. The figures stand in ``docs/adr/0002-kubernetes-client.md``.
"""

import ctypes
import gc

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_BLOCK = 128 * 1024


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
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
