"""One blob out of another and a delta: fetched, applied in a process of its own, hashed, thrown away.

Promises: what is rebuilt gets its name only with the digest of the signed manifest (``BlobWriter.commit``); a delta that is
wrong in whatever way leaves nothing behind and is one ``Refused``; so does one that came and could not be used. What a
killed agent left of a file half rebuilt is begun anew, or resumed when the whole file is fetched after all: it is either a
right beginning or found out by its hash. Leaves to others: whether to (``delta_artifact.choose``), what then (``transfer``).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from edgemodel.artifact.delta_artifact import DeltaLayer
from edgemodel.artifact.manifest import Descriptor
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.source import Source
from edgemodel.artifact.transfer import Progress, fetch
from edgemodel.errors import Refused
from edgemodel.node.store import NodeStore

FIRST_GUESS = 60e6
"""Bytes of the new file a second, until one was applied: with the child's start, hashing and flushing; decoding alone is
over twice as fast. A guess too high costs most, on fast links, where the whole file is there sooner than it seems."""


class Apply(Protocol):
    """Rebuilds a file; ``artifact.delta.process.apply_in_child`` is one."""

    def __call__(
        self, base: Path | None, patch: Path, write: Callable[[bytes | memoryview], None], *, size: int
    ) -> Awaitable[None]:
        """Call ``write`` with the file's bytes in order; raise ``Refused`` when the patch is no good."""


async def apply_delta(
    base: Path | None, patch: Path, write: Callable[[bytes | memoryview], None], *, size: int
) -> None:
    """Apply in a child process with limits on its memory and time."""
    from edgemodel.artifact.delta.process import apply_in_child  # loaded only where there are deltas

    try:
        await apply_in_child(base, patch, write, size=size)
    except OSError as error:
        raise Refused("DeltaInvalid", f"the process that applies deltas cannot run: {error}") from error


class Patcher:
    """Applies one delta at a time: each takes a core, and memory.

    Args:
        store: where bases are and the files go.
        apply: rebuilds a file.
        clock: seconds, never backwards.
    """

    def __init__(
        self, store: NodeStore, apply: Apply = apply_delta, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._apply = apply
        self._clock = clock
        self._turn = asyncio.Lock()
        self.bytes_per_second = FIRST_GUESS

    async def rebuild(
        self,
        source: Source,
        reference: Reference,
        file: Descriptor,
        delta: DeltaLayer,
        progress: Progress | None = None,
    ) -> int:
        """Bring a file into the store by a delta; return how many bytes came over the network.

        Raises:
            Refused: ``DigestMismatch``, ``DeltaInvalid``: the delta is no good; the whole file must be fetched.
            Transient: as ``transfer.fetch``.
        """
        blobs = self._store.blobs
        with self._store.expecting(delta.descriptor.digest):
            try:
                came = await fetch(source, reference, delta.descriptor, blobs, progress)
                async with self._turn, blobs.writing(file) as writer:
                    if writer is None:
                        return came
                    base = blobs.path(delta.from_digest) if delta.from_digest is not None else None
                    begun = self._clock()
                    try:
                        await asyncio.to_thread(writer.restart)
                        await self._apply(
                            base, blobs.path(delta.descriptor.digest), writer.write, size=file.size
                        )
                        await asyncio.to_thread(writer.commit)
                    except Refused:
                        await asyncio.to_thread(writer.restart)
                        raise
                    self._measure(file.size, self._clock() - begun)
            except Refused:
                await asyncio.to_thread(self._store.drop, delta.descriptor.digest)
                raise
            await asyncio.to_thread(self._store.drop, delta.descriptor.digest)
        return came

    def _measure(self, size: int, seconds: float) -> None:
        # Starting the child takes longer than a small file: its speed would say nothing of a large one's.
        if size >= 8 << 20 and seconds > 0:
            self.bytes_per_second += (size / seconds - self.bytes_per_second) / 3
