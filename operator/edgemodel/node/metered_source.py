"""A source whose blobs are paced by the node's limiter and whose speed is measured.

Promises: pieces come through unchanged; a pause of the limiter is time that the sender waits (TCP holds it back), not time
that counts as a slow registry. Leaves to others: everything else about sources (``registry``, ``image_layout``).
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.oci_manifest import Descriptor
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.source import Source
from edgemodel.node.limiter import Limiter


class LinkSpeed:
    """What the node's link has lately given, all transfers together: a mean in which a new sample has a third.

    Only the time in which something was being transferred counts; the limiter's pauses count too, as what is wanted is how
    long the next transfer will take.
    """

    SAMPLE_BYTES = 1 << 20
    """Less says more about round trips than about the link."""
    WEIGHT = 1 / 3
    LONGEST_AGE = 3600.0
    """Seconds after which nothing is known any more: a link may have become another meanwhile."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running = 0
        self._since = 0.0
        self._bytes = 0
        self._mean: float | None = None
        self._measured = 0.0

    def begin(self) -> None:
        """Note that a transfer begins."""
        if self._running == 0:
            self._since = self._clock()
            self._bytes = 0
        self._running += 1

    def end(self) -> None:
        """Note that one has ended."""
        self._running -= 1
        self._sample()

    def count(self, amount: int) -> None:
        """Note that bytes arrived."""
        self._bytes += amount
        if self._bytes >= 16 * self.SAMPLE_BYTES:
            self._sample()

    def _sample(self) -> None:
        elapsed = self._clock() - self._since
        if self._bytes < self.SAMPLE_BYTES or elapsed <= 0:
            return
        speed, known = self._bytes / elapsed, self.bytes_per_second
        self._mean = speed if known is None else known + self.WEIGHT * (speed - known)
        self._measured = self._clock()
        self._since += elapsed
        self._bytes = 0

    @property
    def bytes_per_second(self) -> float | None:
        """The mean; None while nothing of any size was transferred, or not for an hour."""
        return self._mean if self._clock() - self._measured < self.LONGEST_AGE else None


class MeteredSource:
    """See the module's docstring."""

    def __init__(self, source: Source, limiter: Limiter, speed: LinkSpeed) -> None:
        self._source = source
        self._limiter = limiter
        self._speed = speed
        self.limits = source.limits

    async def resolve(self, reference: Reference, *, known: Digest | None = None) -> Digest:
        """See ``Source``."""
        return await self._source.resolve(reference, known=known)

    async def manifest(self, reference: Reference) -> bytes:
        """See ``Source``."""
        return await self._source.manifest(reference)

    async def blob(
        self, reference: Reference, descriptor: Descriptor, *, offset: int = 0, exact: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """See ``Source``; as fast as the limiter lets it."""
        self._speed.begin()
        try:
            pieces = self._source.blob(reference, descriptor, offset=offset, exact=exact)
            async with aclosing(pieces):
                async for piece in pieces:
                    await self._limiter.take(len(piece))
                    self._speed.count(len(piece))
                    yield piece
        finally:
            self._speed.end()

    async def small_blob(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """See ``Source``."""
        return await self._source.small_blob(reference, descriptor)

    async def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """See ``Source``."""
        return await self._source.referrers(reference, digest)

    async def legacy_signatures(self, reference: Reference, digest: Digest) -> bytes | None:
        """See ``Source``."""
        return await self._source.legacy_signatures(reference, digest)
