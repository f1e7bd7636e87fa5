"""An HTTP request and its response as values, who answers one with the other, and how a response is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

from inference_server.errors import RequestError

Buffer = bytes | memoryview

# Answers up to here leave in one write and one packet; a part of a larger one is not copied to join it.
_JOINED_BYTES = 64 * 1024
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(slots=True)
class Request:
    """A complete request.

    Attributes:
        method: As it came.
        target: The request target as it came, query included.
        headers: Those that the handler looks at, by lower-case name; of a repeated one the last.
        body: Its body; a large one lies in memory of its own.
    """

    method: str
    target: bytes
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: Buffer = b""


@dataclass(slots=True)
class Response:
    """An answer.

    Attributes:
        status: Status code.
        body: Its parts in order. They must not change until they are written, which may be after the handler returned.
        content_type: Value of Content-Type.
        headers: Headers beyond Content-Type, Content-Length, Date and Connection.
    """

    status: int
    body: tuple[Buffer, ...]
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(slots=True)
class Turn:
    """A request waiting to be answered, or the error that stands in its place."""

    request: Request | None
    keep_alive: bool
    error: RequestError | None = None


class Handler(Protocol):
    """What a connection calls."""

    @property
    def looks_at(self) -> frozenset[bytes]:
        """Lower-case names of the headers that a request is to carry; the others are dropped as they come."""

    def tensors_at(self, headers: Mapping[bytes, bytes]) -> int:
        """Return where in its body a request has data that should be aligned in memory; 0 for anywhere."""

    async def handle(self, request: Request) -> Response:
        """Answer a complete request; raises nothing but cancellation. Up to its first wait it runs in no task (`eager`)."""

    def at_once(self, request: Request) -> Response | None:
        """Answer a complete request that need not wait for anything; None for any other, which is then to be handled."""

    def refuse(self, request: Request | None, error: RequestError) -> Response:
        """Answer a request that is not even complete; `request` is None when not even its head is."""


def pieces(request: Request | None, response: Response, date: bytes, keep_alive: bool) -> tuple[Buffer, ...]:
    """Return a response as it is written: in one piece while that is cheap, else its parts from where they lie.

    Args:
        request: What it answers; None when not even its head came.
        response: The response.
        date: Value of Date.
        keep_alive: Whether the connection stays open.
    """
    parts = response.body
    length = sum(map(len, parts))
    start = head(response, length, date, keep_alive)
    if request is not None and request.method == "HEAD":
        return (start,)
    if length <= _JOINED_BYTES:
        return (b"".join((start, *parts)),)
    return (start, *parts)


_starts: dict[tuple[int, bytes], bytes] = {}


def head(response: Response, length: int, date: bytes, keep_alive: bool) -> bytes:
    """Return a response's status line and headers.

    Args:
        response: The response.
        length: Bytes of its body.
        date: Value of Date.
        keep_alive: Whether the connection stays open.
    """
    key = (response.status, response.content_type)
    start = _starts.get(key)
    if start is None:
        # As few as there are statuses and content types.
        start = _starts[key] = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: " % (
            response.status,
            _REASONS.get(response.status, b""),
            response.content_type,
        )
    more = b"".join([b"%s: %s\r\n" % pair for pair in response.headers]) if response.headers else b""
    return b"%s%d\r\nDate: %s\r\n%sConnection: %s\r\n\r\n" % (
        start,
        length,
        date,
        more,
        b"keep-alive" if keep_alive else b"close",
    )
