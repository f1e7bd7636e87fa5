"""Applies a patch in a child process: what a hostile patch can break there is the child.

Promises: the child has no environment of ours, no descriptors but its pipes, caps on address space and processor
time, and ends with the call whatever happens (done, refused, timed out, cancelled). The parent never parses a patch;
it passes on at most ``size`` bytes. Everything that goes wrong in the child is one refusal. Leaves to others: the
digest of what came out.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from edgemodel.artifact.delta.refusal import REFUSED, refuse
from edgemodel.errors import Refused

ADDRESS_SPACE = 512 << 20
"""Default cap in bytes; most of it is libraries and arenas, mapped and never touched. Resident are less than 100 MB."""
PIECE = 1 << 20
SLOWEST = 4 << 20
"""Bytes a second that even a slow device applies: what wall and processor time are counted from."""
PATIENCE = 30.0
"""Seconds on top of that, for starting an interpreter on a busy device."""
MAX_MESSAGE = 4096
_ROOT = Path(__file__).resolve().parents[3]


def time_limit(size: int) -> float:
    """Return the seconds that applying a patch to a file of ``size`` bytes may take."""
    return PATIENCE + size / SLOWEST


async def apply_in_child(
    base: Path | None,
    patch: Path,
    write: Callable[[bytes | memoryview], object],
    *,
    size: int,
    memory_bytes: int = ADDRESS_SPACE,
    seconds: float | None = None,
) -> None:
    """Rebuild a file of ``size`` bytes and hand it to ``write`` in pieces of at least 256 KiB (but for the last).

    Args:
        base: the old file, or None for a codec without one.
        patch: the patch file.
        write: takes each piece; a piece is good only during the call. What it raises is raised from here.
        size: what the signed descriptor says the new file has; not one byte more is passed on.
        memory_bytes: cap on the child's address space.
        seconds: cap on wall and processor time; None counts it from ``size``.

    Raises:
        Refused: ``DeltaInvalid``; the patch was refused, or the child overran a cap or died.
        OSError: no process can be started.
    """
    limit = time_limit(size) if seconds is None else seconds
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-s", "-P", "-m", "edgemodel.artifact.delta",
        "" if base is None else str(base), str(patch), str(size), str(memory_bytes), str(max(1, round(limit))),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environment(), limit=2 * PIECE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    message = asyncio.ensure_future(_tail(process.stderr))
    try:
        async with asyncio.timeout(limit):
            received = await _pass_on(process.stdout, write, size)
            code = await process.wait()
            said = await message
    except TimeoutError:
        refuse(f"expected it to be applied within {limit:.0f} s, found it still running")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        message.cancel()
        await asyncio.shield(process.wait())
    if code and said.startswith(REFUSED):
        raise Refused("DeltaInvalid", said)
    if code:
        refuse(f"expected the applying process to end well, found it ended with {code} ({said or 'silent'})")
    if received != size:
        refuse(f"expected {size} bytes, found {received}")


async def _pass_on(
    stream: asyncio.StreamReader, write: Callable[[bytes | memoryview], object], size: int
) -> int:
    received = 0
    while True:
        try:
            piece = await stream.readexactly(min(PIECE, size - received + 1))
        except asyncio.IncompleteReadError as end:
            piece = end.partial
        if received + len(piece) > size:
            refuse(f"expected {size} bytes, found more")
        received += len(piece)
        if not piece:
            return received
        write(piece)
        if len(piece) < min(PIECE, size - received + len(piece) + 1):
            return received


async def _tail(stream: asyncio.StreamReader) -> str:
    """The last line that the child says, no more of it than is worth keeping, and nothing that is not text."""
    kept = b""
    while piece := await stream.read(MAX_MESSAGE):
        kept = (kept + piece)[:MAX_MESSAGE]
    lines = kept.decode("utf-8", "replace").strip().splitlines()
    return "".join(letter if letter.isprintable() else "?" for letter in lines[-1][:500]) if lines else ""


def environment() -> dict[str, str]:
    """Return the child's environment: nothing of ours, no proxy, no token, no configuration.

    One thread, as arrays here are too small for more; and buffers of a few MiB stay with the allocator, which else gives
    them back to the kernel after each block and has them zeroed for the next.
    """
    return {
        "PATH": os.defpath,
        # Where this package lies need not be where the interpreter looks by itself; nothing else is looked up there.
        "PYTHONPATH": str(_ROOT),
        "LANG": "C.UTF-8",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
    }
