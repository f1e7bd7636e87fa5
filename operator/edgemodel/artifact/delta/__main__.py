"""The child of ``process``: writes to its output the file that a patch rebuilds.

Usage: ``python -m edgemodel.artifact.delta BASE PATCH SIZE MEMORY SECONDS``.

Promises: caps itself before it opens anything; says in one line on standard error why it refused, and ends with 1.
The message is the refusal's own.
"""

import contextlib
import fcntl
import os
import resource
import sys
from pathlib import Path

from edgemodel.artifact.delta.refusal import REFUSED
from edgemodel.errors import Refused

PIECE = 1 << 20


def main(base: str, patch: str, size: str, memory: str, seconds: str) -> int:
    """Apply one patch; return the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(OSError):  # not a pipe, or larger than this user may
        fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, PIECE)
    from edgemodel.artifact.delta import codec

    def send(view: memoryview) -> None:
        while view:
            view = view[os.write(1, view) :]

    # One buffer for all that is small: the parent is woken once a MiB, not once a tensor.
    buffer = bytearray(PIECE)
    held = 0

    def gather(piece: bytes | memoryview) -> None:
        nonlocal held
        view = memoryview(piece)
        if not held and len(view) >= PIECE:
            send(view)
            return
        while view:
            taken = min(len(view), PIECE - held)
            buffer[held : held + taken] = view[:taken]
            held += taken
            view = view[taken:]
            if held == PIECE:
                flush()

    def flush() -> None:
        nonlocal held
        send(memoryview(buffer)[:held])
        held = 0

    try:
        codec.apply(Path(base) if base else None, Path(patch), gather, size=int(size))
        flush()
    except Refused as error:
        message = error.message
    except MemoryError:
        message = f"{REFUSED}expected it to need at most {memory} bytes of memory, found more"
    except OSError as error:
        message = f"{REFUSED}expected to read base and patch and to write, found: {error.strerror or error}"
    else:
        return 0
    os.write(2, message.encode())
    return 1


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
