"""A large request body on its way from the kernel to the place where it stays.

Promises that its bytes are copied once, by the kernel, and that a tensor in it lies aligned; that memory is charged
before the kernel may write to it, in steps of `GRANT_BYTES`. The room for the whole body is set aside at once, but
that costs addresses only: the kernel gives a page when something is written there, in pieces of up to 2 MiB where
huge pages are on, which is why a step is that large. A client that announces much and sends little holds what it sent,
rounded up to a step.
"""

import asyncio
from collections.abc import Callable

import numpy as np

from inference_server.errors import NotReady

# Smaller bodies come through the HTTP parser, which hands them out as bytes: one copy more, and less to set up.
LARGE_BYTES = 256 * 1024
GRANT_BYTES = 2 * 1024 * 1024
# A cache line, and more than any vector load asks for.
_ALIGNMENT = 64


class LargeBody:
    """Room for one body of known length.

    Args:
        length: Bytes of the body, from Content-Length.
        aligned_at: Offset in it that is to lie at a multiple of 64.
        charge: Takes a number of bytes into account; raises `NotReady` when that is too many.

    Raises:
        NotReady: Memory is charged to the limit, or the system has no room of this size.
    """

    def __init__(self, length: int, aligned_at: int, charge: Callable[[int], None]) -> None:
        self._charge = charge
        self.length = length
        self.received = 0
        self.charged = 0
        try:
            room = np.empty(length + _ALIGNMENT, np.uint8)
        except MemoryError:
            raise NotReady("no memory for a body of this size now; send a smaller one or try later") from None
        start = -(int(room.__array_interface__["data"][0]) + aligned_at) % _ALIGNMENT
        self._room = room.data[start : start + length]
        self._grant()

    @property
    def complete(self) -> bool:
        """Whether all bytes came."""
        return self.received == self.length

    @property
    def content(self) -> memoryview:
        """The bytes that came."""
        return self._room[: self.received]

    def put(self, data: bytes) -> None:
        """Take a piece that was received elsewhere.

        Raises:
            NotReady: Memory is charged to the limit.
        """
        end = self.received + len(data)
        while self.charged < end:
            self._grant()
        self._room[self.received : end] = data
        self.received = end

    def free(self) -> memoryview:
        """Return the memory into which the next bytes go."""
        return self._room[self.received : self.charged]

    def filled(self, count: int) -> None:
        """Note that so many bytes were written to `free`.

        Raises:
            NotReady: Memory is charged to the limit.
        """
        self.received += count
        if self.received == self.charged and not self.complete:
            self._grant()

    def _grant(self) -> None:
        step = min(GRANT_BYTES, self.length - self.charged)
        self._charge(step)
        self.charged += step


class BodyReceiver(asyncio.BufferedProtocol):
    """Stands in for a connection while the rest of a large body comes, and reads straight into its room.

    Args:
        body: Where the bytes go.
        connection: Whom to tell of everything else.
        received: Called when bytes came, with their number; raises nothing.
    """

    def __init__(
        self, body: LargeBody, connection: asyncio.Protocol, received: Callable[[int], None]
    ) -> None:
        self._body = body
        self._connection = connection
        self._received = received

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the memory for the next bytes; never more than this body takes, so that no next request gets there."""
        del sizehint
        return self._body.free()

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on how much came."""
        self._received(nbytes)

    def eof_received(self) -> bool | None:
        """Pass on that the peer sends no more."""
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on the end."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the peer does not read."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it reads again."""
        self._connection.resume_writing()
