"""How an HTTP/2 connection ends without losing a request.

A GOAWAY that names no stream, and a PING; when the PING is back the peer has read the GOAWAY, and a second one names the
last stream that came (RFC 9113 section 6.8).
"""

from collections.abc import Callable

from inference_server.http2 import frames as h2
from inference_server.http2.frames import ErrorCode

# A peer that does not answer the first GOAWAY within so long gets the second all the same; what it sends then is lost to it,
# as the connection may be reset before it reads that.
LEAVE_SECONDS = 5.0
_PING = b"last-one"


class Goodbye:
    """The two steps of one connection.

    Args:
        write: Hands bytes to the transport.
        clock: Seconds that only rise.

    Attributes:
        over: Whether the second GOAWAY is out: streams that come now are ignored.
    """

    __slots__ = ("_clock", "_since", "_write", "over")

    def __init__(self, write: Callable[[bytes], None], clock: Callable[[], float]) -> None:
        self._write, self._clock = write, clock
        self._since: float | None = None
        self.over = False

    @property
    def begun(self) -> bool:
        """Whether the peer was told to send its next requests elsewhere."""
        return self._since is not None

    def begin(self) -> None:
        """Take the first step."""
        if self._since is None:
            self._since = self._clock()
            self._write(
                h2.goaway_frame(h2.MAX_STREAM_ID, ErrorCode.NO_ERROR) + h2.frame(h2.PING, 0, 0, _PING)
            )

    def heard(self, payload: memoryview, last_stream: int) -> None:
        """Take the answer to a PING."""
        if self.begun and payload == _PING:
            self._end(last_stream)

    def look(self, last_stream: int) -> None:
        """Take the second step where the answer to the first is overdue."""
        if self._since is not None and self._clock() - self._since > LEAVE_SECONDS:
            self._end(last_stream)

    def _end(self, last_stream: int) -> None:
        if not self.over:
            self.over = True
            self._write(h2.goaway_frame(last_stream, ErrorCode.NO_ERROR))
