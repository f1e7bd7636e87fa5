"""What an HTTP/2 connection calls, and what it is told of a request before its body."""

from typing import TYPE_CHECKING, Protocol

from inference_server.errors import RequestError
from inference_server.http2.headers import RequestHead

if TYPE_CHECKING:
    from inference_server.http2.stream import Stream


class Accepted:
    """What a `Calls` made of a request's headers. Shared by all requests with the same headers.

    Attributes:
        at_once: Whether to answer when the headers are there, without waiting for the end of the body.
        max_bytes: Most bytes of body.
    """

    __slots__ = ("at_once", "max_bytes")

    def __init__(self, max_bytes: int, at_once: bool = False) -> None:
        self.max_bytes = max_bytes
        self.at_once = at_once


class Calls(Protocol):
    """What a connection calls."""

    def accept(self, head: RequestHead) -> Accepted:
        """Judge headers; whatever is wrong with them is said by `answer`."""

    async def answer(self, stream: "Stream") -> None:
        """Answer a request: to the end, or until cancelled."""

    def refuse(self, stream: "Stream", error: RequestError) -> None:
        """Answer a request that was not even read to its end."""
