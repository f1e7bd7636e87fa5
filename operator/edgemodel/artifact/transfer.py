"""From registry to store: one blob, streamed, hashed on the way, resumed where it stopped.

Promises: memory stays at a few megabytes whatever the blob's size; network, hashing and disk overlap (hashing and writing
run in a thread and let go of the interpreter lock); wrong bytes are fetched once more from the beginning and then refused.
Leaves to others: what to fetch (``pull``), retries on the network (``registry``), files and locks (``store``).
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from edgemodel.artifact.manifest import Descriptor
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.source import Source
from edgemodel.artifact.store import BlobWriter, Store
from edgemodel.errors import Refused, Transient

BATCH_BYTES = 1 << 20
"""Bytes handed to the writing thread at a time: fewer hops between threads, still little memory."""

Progress = Callable[[Descriptor, int], None]
"""Called with a blob and how many more bytes of it are here; less than none when it begins anew."""


async def fetch(
    registry: Source,
    reference: Reference,
    descriptor: Descriptor,
    store: Store,
    progress: Progress | None = None,
) -> int:
    """Bring one blob into the store, unless it is there, and return how many bytes came for it.

    Raises:
        Refused: ``DigestMismatch`` when bytes or length are not what the descriptor says, twice.
        Transient: ``TransferFailed``, ``DiskFull``, ``NotFound``, ``AuthenticationFailed``, ``RegistryUnreachable``.
    """
    here = 0

    def report(more: int) -> None:
        nonlocal here
        here += more
        if progress is not None:
            progress(descriptor, more)

    async with store.writing(descriptor) as writer:
        if writer is None:
            report(descriptor.size)
            return 0
        began = writer.offset
        report(began)
        try:
            await _fill(registry, reference, descriptor, writer, report)
        except Refused:
            # What an earlier run left may have been spoiled, or a cache on the way; a second, whole answer decides.
            report(-here)
            await asyncio.to_thread(writer.restart)
            began = 0
            await _fill(registry, reference, descriptor, writer, report)
        return descriptor.size - began


async def _fill(
    registry: Source,
    reference: Reference,
    descriptor: Descriptor,
    writer: BlobWriter,
    report: Callable[[int], None],
) -> None:
    batch = bytearray()
    writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writing.set_result(None)
    try:
        async with aclosing(registry.blob(reference, descriptor, offset=writer.offset)) as pieces:
            async for piece in pieces:
                batch += piece
                if len(batch) >= BATCH_BYTES:
                    # One batch is hashed and written while the next one arrives.
                    await writing
                    writing = asyncio.ensure_future(asyncio.to_thread(writer.write, batch))
                    report(len(batch))
                    batch = bytearray()
    except (Transient, asyncio.CancelledError):
        # A slow line took a minute for it: the next try goes on behind it. Written here and not in a thread: who is
        # cancelled a second time would leave before the thread had begun.
        if not writing.done():
            await asyncio.wait((writing,))
        if batch and writing.exception() is None:
            writer.write(batch)
        raise
    finally:
        # After an error the file may be begun anew: not while a batch is still on its way into it.
        await asyncio.wait((writing,))
    await writing
    if batch:
        await asyncio.to_thread(writer.write, batch)
        report(len(batch))
    await asyncio.to_thread(writer.commit)
