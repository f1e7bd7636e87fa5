"""One HTTP/1.1 connection of a load client: writes a request, finds out when its answer is whole, keeps the first of it.

Promises that at most one request is out; that whatever the server sends, memory stays what it was (a head has 32 KiB, of
a body only the first bytes are kept); and that each request that was sent ends in ``answered`` or in ``lost``, once.
Understands answers by Content-Length, in chunks, and by the end of the connection (RFC 9112 section 6.3).

Why not an HTTP library: the client must cost less than what it measures, on the same two cores. httpx takes tens of times
the processor time for each request (``make bench NAME=load_client``).
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

HEAD_BYTES = 32 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])[ \r]")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*close", re.IGNORECASE)
_KEEP_ALIVE = re.compile(rb"\r\nconnection:[^\r]*keep-alive", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Attributes:
        status: of HTTP.
        body: the first bytes of it.
        reusable: the connection takes another request.
    """

    status: int
    body: bytes
    reusable: bool


class Owner(Protocol):
    """Who is told."""

    def answered(self, connection: "Connection", answer: Answer) -> None:
        """The answer is whole."""

    def lost(self, connection: "Connection", words: str) -> None:
        """The connection is gone; what was out on it has no answer."""


class _Malformed(Exception):
    """What came is not HTTP/1.1."""


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        owner: is told what comes.
        keep: bytes of each body to keep.
    """

    def __init__(self, owner: Owner, keep: int = 300) -> None:
        self._owner, self._keep = owner, keep
        self._transport: asyncio.Transport | None = None
        self._take: Callable[[bytes], bytes] = self._head
        self._buffer = b""
        """What is not understood yet: part of a head, or of a line between chunks."""
        self._left = 0
        self._kept: list[bytes] = []
        self._room = keep
        self._status = 0
        self._reusable = True
        self._done = False
        """The answer is whole."""
        self._over = False
        self.out = False
        """A request is out."""
        self.due = 0.0
        """When it was due, by the loop's clock; of whoever owns the connection."""
        self.sent = 0.0
        """When it was sent."""

    def send(self, request: bytes) -> None:
        """Send a whole request; nothing else may be out."""
        assert self._transport is not None
        assert not self.out
        self.out, self._done = True, False
        self._take, self._buffer, self._kept, self._room = self._head, b"", [], self._keep
        self._transport.write(request)

    def abort(self, words: str) -> None:
        """Give the connection up."""
        self._end(words)
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close an idle connection; the owner is not told."""
        self._over = True
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer."""
        try:
            while data and self.out and not self._done:
                data = self._take(data)
        except _Malformed as error:
            self.abort(f"not an HTTP/1.1 answer: {error}")
            return
        if data:
            self.abort(f"more than was asked for: {data[:60]!r}")
        elif self._done:
            self._deliver()

    def eof_received(self) -> bool:
        """End a body that ends with the connection."""
        if self.out and self._take == self._until_end:
            self._reusable = False
            self._deliver()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the owner, unless it knows."""
        self._transport = None
        self._end(f"connection closed{f': {error}' if error else ''}")

    # --- an answer, piece by piece: each takes bytes and returns those that it left ---

    def _head(self, data: bytes) -> bytes:
        self._buffer = raw = self._buffer + data if self._buffer else data
        end = raw.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_BYTES:
            if len(raw) > HEAD_BYTES:
                raise _Malformed(f"its head has more than {HEAD_BYTES} bytes")
            return b""
        head, rest = raw[: end + 2], raw[end + 4 :]
        self._buffer = b""
        first = _STATUS.match(head)
        if first is None:
            raise _Malformed(f"{head[:60]!r}")
        self._status = int(first[2])
        if 100 <= self._status < 200:
            return rest  # an interim answer; the head of the real one follows
        self._reusable = not _CLOSE.search(head) and (first[1] == b"1" or bool(_KEEP_ALIVE.search(head)))
        length = _LENGTH.search(head)
        if self._status in (204, 304):
            self._done = True
        elif _CHUNKED.search(head):
            self._take = self._chunk_size
        elif length is None:
            self._take = self._until_end
        else:
            self._left, self._take = int(length[1]), self._by_length
            if not self._left:
                self._done = True
        return rest

    def _by_length(self, data: bytes) -> bytes:
        size = min(self._left, len(data))
        self._note(data[:size])
        self._left -= size
        if not self._left:
            self._done = True
        return data[size:]

    def _until_end(self, data: bytes) -> bytes:
        self._note(data)
        return b""

    def _chunk_size(self, data: bytes) -> bytes:
        line, rest = self._line(data)
        if line is None:
            return b""
        try:
            self._left = int(line.partition(b";")[0].strip(), 16)
        except ValueError:
            raise _Malformed(f"chunk size {line[:40]!r}") from None
        if self._left < 0:
            raise _Malformed(f"chunk size {line[:40]!r}")
        self._take = self._chunk if self._left else self._trailer
        return rest

    def _chunk(self, data: bytes) -> bytes:
        size = min(self._left, len(data))
        self._note(data[:size])
        self._left -= size
        if not self._left:
            self._take = self._chunk_end
        return data[size:]

    def _chunk_end(self, data: bytes) -> bytes:
        line, rest = self._line(data)
        if line is None:
            return b""
        if line:
            raise _Malformed(f"{line[:40]!r} after a chunk")
        self._take = self._chunk_size
        return rest

    def _trailer(self, data: bytes) -> bytes:
        line, rest = self._line(data)
        if line == b"":
            self._done = True
        return rest

    def _line(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Return a line without its end, None while it is not whole, and what follows it."""
        raw = self._buffer + data
        line, found, rest = raw.partition(b"\r\n")
        if not found:
            if len(raw) > HEAD_BYTES:
                raise _Malformed(f"a line of more than {HEAD_BYTES} bytes between chunks")
            self._buffer = raw
            return None, b""
        self._buffer = b""
        return line, rest

    def _note(self, data: bytes) -> None:
        if self._room > 0:
            self._kept.append(data[: self._room])
            self._room -= len(data)

    def _deliver(self) -> None:
        self.out = False
        answer = Answer(self._status, b"".join(self._kept), self._reusable)
        if not self._reusable:
            self._over = True
            if self._transport is not None:
                self._transport.close()
        self._owner.answered(self, answer)

    def _end(self, words: str) -> None:
        if not self._over:
            self._over = True
            self.out = False
            self._owner.lost(self, words)
