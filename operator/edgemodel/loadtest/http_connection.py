"""One HTTP/1.1 connection of a load client: writes a request, finds out when its answer is whole, keeps the first of it.

Promises that whatever the server sends, memory stays what it was (a head has 32 KiB, of a body only the first bytes are
kept).
Understands answers by Content-Length, in chunks, and by the end of the connection (RFC 9112 section 6.3).

Why not an HTTP library: the client must cost less than what it measures, on the same two cores. httpx takes tens of times
the processor time for each request (``make bench NAME=load_client``).
"""

import re
from collections.abc import Callable

from edgemodel.loadtest.connection import HEAD_BYTES, Connection, Malformed, Owner

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])[ \r]")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*close", re.IGNORECASE)
_KEEP_ALIVE = re.compile(rb"\r\nconnection:[^\r]*keep-alive", re.IGNORECASE)


class HttpConnection(Connection):
    """One connection; its requests are those of ``Target.request``."""

    def __init__(self, owner: Owner, keep: int = 300) -> None:
        super().__init__(owner, keep)
        self._take: Callable[[bytes], bytes] = self._head
        self._left = 0
        self._status = 0
        self._done = False
        """The answer is whole."""

    def send(self, request: bytes) -> None:
        """Send a whole request; nothing else may be out."""
        transport = self._begin()
        self._done, self._take, self._buffer = False, self._head, b""
        transport.write(request)

    # --- asyncio.Protocol ---

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer."""
        try:
            while data and self.out and not self._done:
                data = self._take(data)
        except Malformed as error:
            self.abort(f"not an HTTP/1.1 answer: {error}")
            return
        if data:
            self.abort(f"more than was asked for: {data[:60]!r}")
        elif self._done:
            self._tell()

    def eof_received(self) -> bool:
        """End a body that ends with the connection."""
        if self.out and self._take == self._until_end:
            self._reusable = False
            self._tell()
        return False

    # --- an answer, piece by piece: each takes bytes and returns those that it left ---

    def _head(self, data: bytes) -> bytes:
        self._buffer = raw = self._buffer + data if self._buffer else data
        end = raw.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_BYTES:
            if len(raw) > HEAD_BYTES:
                raise Malformed(f"its head has more than {HEAD_BYTES} bytes")
            return b""
        head, rest = raw[: end + 2], raw[end + 4 :]
        self._buffer = b""
        first = _STATUS.match(head)
        if first is None:
            raise Malformed(f"{head[:60]!r}")
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
            raise Malformed(f"chunk size {line[:40]!r}") from None
        if self._left < 0:
            raise Malformed(f"chunk size {line[:40]!r}")
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
            raise Malformed(f"{line[:40]!r} after a chunk")
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
                raise Malformed(f"a line of more than {HEAD_BYTES} bytes between chunks")
            self._buffer = raw
            return None, b""
        self._buffer = b""
        return line, rest

    def _tell(self) -> None:
        self._deliver("" if self._status == 200 else f"HTTP {self._status}")
