"""Makes and applies patches: one interface over every codec, and the only place that knows them all.

Codecs: ``ulp`` subtracts matched tensors number by number; ``patch-from`` is zstd with the old bytes as history;
``hdiff`` finds moved and edited bytes; ``planes`` has no base and only sorts numbers' bytes for compression.
Promises: ``apply`` writes exactly ``size`` bytes or raises, front to back, and never one byte beyond; nothing in a
patch makes it use more than about 100 MB. It parses no model: all it needs is in the patch. Leaves to others: the
digest of what was written.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgemodel.artifact.delta import windows
from edgemodel.artifact.delta.base import FileBytes
from edgemodel.artifact.delta.layout import (
    Bytes,
    Header,
    PatchReader,
    fingerprint,
    read_header,
    write_header,
)
from edgemodel.artifact.delta.refusal import refuse

if TYPE_CHECKING:
    from edgemodel.artifact.delta.quant import TensorSteps
    from edgemodel.artifact.delta.tensors import TensorSpan

NAMES = ("ulp", "patch-from", "hdiff", "planes")
"""Every codec, the usually best one first. Never shortened: what was released is read for ever."""
WITH_TENSORS = ("ulp", "planes")
WITH_BASE = ("ulp", "patch-from", "hdiff")
LEVELS = {"ulp": 3, "planes": 3, "patch-from": 3, "hdiff": 19}
"""zstd level by codec when none is asked for."""


def encode(
    codec: str,
    old: Path | None,
    new: Path,
    out: Path,
    *,
    old_tensors: "Sequence[TensorSpan] | None" = None,
    new_tensors: "Sequence[TensorSpan] | None" = None,
    level: int | None = None,
    steps: "Sequence[TensorSteps]" = (),
) -> None:
    """Write to ``out`` a patch that turns ``old`` into ``new``.

    Args:
        codec: one of ``NAMES``.
        old: the base; None for ``planes``, which needs none.
        new: the file to rebuild.
        out: where the patch goes; overwritten.
        old_tensors: where the numbers are in ``old`` (``tensors.tensors_of``); without them ``ulp`` subtracts nothing.
        new_tensors: where they are in ``new``.
        level: zstd level 1 to 22; None for the codec's own, which keeps ``ulp`` above 60 MB/s.
        steps: of tensors whose weights were moved in even steps (``quant``); ``ulp`` writes those steps then.

    Raises:
        ValueError: an unknown codec, or no base where one is needed.
        OSError: the files cannot be read or written.
    """
    if codec not in NAMES:
        raise ValueError(f"expected a codec of {', '.join(NAMES)}, found {codec!r}")
    if codec in WITH_BASE and old is None:
        raise ValueError(f"expected a base for codec {codec}, found none")
    chosen = LEVELS[codec] if level is None else level
    with ExitStack() as stack:
        after = stack.enter_context(FileBytes(new))
        before = stack.enter_context(FileBytes(old)) if old is not None and codec in WITH_BASE else None
        file = stack.enter_context(out.open("wb"))
        size = before.size if before is not None else None
        write_header(file, Header(codec, after.size, size, fingerprint(before) if before is not None else ""))
        if codec in WITH_TENSORS:
            from edgemodel.artifact.delta.segments import encode_segments

            moved = {one.offset: one.steps for one in steps}
            encode_segments(before, after, file, old_tensors or (), new_tensors or (), chosen, moved)
        else:
            method = windows.HDIFF if codec == "hdiff" else windows.ZSTD
            windows.encode(before, after, file, method=method, level=chosen)


def apply(
    base: Path | None, patch: Path, write: Callable[[bytes | memoryview], object], *, size: int
) -> None:
    """Rebuild a file of ``size`` bytes from ``base`` and ``patch`` and hand it to ``write`` piece by piece.

    A piece is good only during the call. In a process that matters, use ``process.apply_in_child``.

    Raises:
        Refused: ``DeltaInvalid``; the patch is malformed, made for another base, or for a file of another size.
        OSError: base or patch cannot be read.
    """
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(patch.open("rb"))
        reader = PatchReader(file)
        header = read_header(reader, NAMES)
        if header.new != size:
            refuse(f"header new: expected a patch to {size} bytes, found {header.new}")
        before: Bytes | None = None
        if header.codec in WITH_BASE:
            if base is None or header.old is None:
                refuse(f"header old: expected a base for codec {header.codec}, found none")
            before = stack.enter_context(FileBytes(base))
            if before.size != header.old or fingerprint(before) != header.base:
                refuse(
                    f"header base: expected the base the patch was made for, {header.old} bytes, found another"
                )
        elif header.old is not None:
            refuse(f"header old: expected no base for codec {header.codec}, found {header.old} bytes")
        left = size
        for piece in _pieces(before, reader, header):
            left -= len(piece)
            if left < 0:
                refuse(f"byte {reader.at}: expected {size} bytes in all, found more")
            write(piece)
        if left:
            refuse(f"byte {reader.at}: expected {size} bytes in all, found {size - left}")
        reader.end()


def _pieces(before: Bytes | None, reader: PatchReader, header: Header) -> Iterator[bytes | memoryview]:
    if header.codec in WITH_TENSORS:
        # numpy comes with it: 11 MiB that the other codecs do without
        from edgemodel.artifact.delta.segments import decode_segments

        return decode_segments(before, reader, header)
    return windows.decode(before, reader, header.new)
