"""What a connection of a load client is to whoever owns it, whichever protocol it speaks.

Promises that at most one request is out on it; that of an answer's body only the first bytes are kept; and that each request
that was sent ends in ``answered`` or in ``lost``, once.
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, cast

HEAD_BYTES = 32 * 1024
"""Most that the headers of an answer may take."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Attributes:
        failure: what the server says has failed, as ``HTTP 503`` or ``gRPC UNAVAILABLE``; "" for a good answer.
        body: the first bytes of it; of a failed call by gRPC its message.
        reusable: the connection takes another request.
    """

    failure: str
    body: bytes
    reusable: bool


class Owner(Protocol):
    """Who is told."""

    def answered(self, connection: "Connection", answer: Answer) -> None:
        """The answer is whole."""

    def lost(self, connection: "Connection", words: str) -> None:
        """The connection is gone; what was out on it has no answer."""


class Malformed(Exception):
    """What came is not of the protocol."""


class Connection(asyncio.Protocol, ABC):
    """One connection.

    Args:
        owner: is told what comes.
        keep: bytes of each body to keep.
    """

    def __init__(self, owner: Owner, keep: int = 300) -> None:
        self._owner, self._keep = owner, keep
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        """What is not understood yet."""
        self._kept: list[bytes] = []
        self._room = keep
        self._reusable = True
        self.over = False
        """It has ended, or is being closed."""
        self.out = False
        """A request is out."""
        self.due = 0.0
        """When it was due, by the loop's clock; of whoever owns the connection."""
        self.sent = 0.0
        """When it was sent."""

    @abstractmethod
    def send(self, request: bytes) -> None:
        """Send a whole request; nothing else may be out."""

    def abort(self, words: str) -> None:
        """Give the connection up."""
        self._end(words)
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close an idle connection; the owner is not told."""
        self.over = True
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the owner, unless it knows."""
        self._transport = None
        self._end(f"connection closed{f': {error}' if error else ''}")

    # --- for those who speak a protocol ---

    def _begin(self) -> asyncio.Transport:
        """Return where to write the request to."""
        assert self._transport is not None
        assert not self.out
        self.out = True
        self._kept, self._room = [], self._keep
        return self._transport

    def _note(self, data: bytes) -> None:
        if self._room > 0:
            self._kept.append(data[: self._room])
            self._room -= len(data)

    def _deliver(self, failure: str, body: bytes | None = None) -> None:
        """Tell the owner of an answer, whose body is what was noted unless one is given."""
        self.out = False
        answer = Answer(failure, b"".join(self._kept) if body is None else body, self._reusable)
        if not self._reusable:
            self.close()
        self._owner.answered(self, answer)

    def _end(self, words: str) -> None:
        if not self.over:
            self.over = True
            self.out = False
            self._owner.lost(self, words)
