"""Heads of requests, remembered by their bytes.

Pure but for the memory it keeps. Clients send the same request line and headers again and again; parsing them costs as
much as decoding a small inference. Promises that what is found is what the parser would say: only whole requests are kept
that it took, and that leave it where it was before them, between two messages. Bounded; full, it starts over.
"""

from dataclasses import dataclass

from inference_server.http.messages import Request

_MOST_HEADS = 256
_MOST_BYTES = 1024
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    target: bytes
    headers: dict[bytes, bytes]
    length: int  # of the body


class Heads:
    """Heads of requests that were taken before."""

    def __init__(self) -> None:
        self._heads: dict[bytes, _Head] = {}

    def find(self, data: bytes) -> Request | None:
        """Return the one whole request that `data` is; None when its head is not known.

        Args:
            data: What arrived while the parser was between two messages.
        """
        end = data.find(_END, 0, _MOST_BYTES) + len(_END)
        head = self._heads.get(data[:end])
        if head is None or len(data) - end != head.length:
            return None
        return Request(head.method, head.target, head.headers, data[end:])

    def keep(self, data: bytes, request: Request) -> None:
        """Remember the head of a request, if it is of the kind that may be.

        Args:
            data: What arrived while the parser was between two messages, and took it there again.
            request: The one request that was in it; its connection stays open.
        """
        end = data.find(_END, 0, _MOST_BYTES) + len(_END)
        # A length that is true rules chunks out: the parser refuses both together (RFC 9112 section 6.3).
        length = len(request.body)
        if end < len(_END) or len(data) - end != length or b"expect" in request.headers:
            return
        if length and request.headers.get(b"content-length") != b"%d" % length:
            return
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        self._heads[data[:end]] = _Head(request.method, request.target, request.headers, length)
