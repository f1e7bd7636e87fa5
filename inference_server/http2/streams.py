"""The open streams of one HTTP/2 connection, from their headers to the last that is said of them.

Promises that a body is counted in `held_bytes` while it is kept, and is neither longer nor shorter than it may be; and that
what answers a stream is cancelled with it. What frames mean for the connection is `connection`'s.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from inference_server.errors import BodyTooLarge, NotReady, RequestError
from inference_server.http.eager import begin
from inference_server.http.limits import FLOOR_BYTES_PER_SECOND, REQUEST_SECONDS, WRITE_SECONDS
from inference_server.http.peers import Peers
from inference_server.http2 import frames as h2
from inference_server.http2.calls import Accepted, Calls
from inference_server.http2.frames import ErrorCode, StreamFault
from inference_server.http2.stream import Sender, Stream

# What a peer may send on a stream before it hears of us again; twice a frame and more.
STREAM_WINDOW = 1 << 20
_RESETS_REMEMBERED = 256


class Streams(dict[int, Stream]):
    """Open streams by number.

    Args:
        peers: What all connections share.
        calls: Whom to call.
        write: Hands bytes to the transport.
        finished: Called with a stream when the end of its answer was written.
        loop: On which requests are answered.

    Attributes:
        sender: The sending half of the connection.
        resets: Streams ended by us: what the peer had sent by then is ignored.
    """

    def __init__(
        self,
        peers: Peers,
        calls: Calls,
        write: Callable[[bytes], None],
        finished: Callable[[Stream], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__()
        self.sender = Sender(write, finished, self._hold, loop.time)
        self.resets: deque[int] = deque(maxlen=_RESETS_REMEMBERED)
        self._peers = peers
        self._calls = calls
        self._write = write
        self._loop = loop
        self._lengths: dict[int, int] = {}  # what `content-length` promised and has not come

    def open(self, number: int, accepted: Accepted, length: int | None, now: float) -> Stream:
        """Begin a stream; `length` is what `content-length` says."""
        stream = self[number] = Stream(number, accepted, self.sender, STREAM_WINDOW, now)
        if length is not None:
            self._lengths[number] = length
        return stream

    def start(self, stream: Stream) -> None:
        """Begin to answer."""
        # Up to its first wait it runs here and now, which may be all of it.
        stream.task = begin(self._calls.answer(stream), self._loop)

    def keep(self, stream: Stream, data: memoryview) -> None:
        """Keep a piece of a body, if it may be kept; else the request is refused.

        Raises:
            StreamFault: The body is longer than `content-length` says.
        """
        size = len(data)
        if (left := self._lengths.get(stream.number)) is not None:
            if size > left:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "DATA beyond content-length")
            self._lengths[stream.number] = left - size
        if len(stream.body) + size > stream.accepted.max_bytes:
            expected = stream.accepted.max_bytes
            self._refuse(stream, BodyTooLarge(f"request: expected at most {expected} bytes, found more"))
            return
        try:
            self._peers.charge(size - stream.taken)
        except NotReady as error:
            self._refuse(stream, error)
        else:
            stream.taken = 0
            stream.body += data

    def give_room(self, stream: Stream) -> None:
        """Let the peer send more on a stream, and who answers it see what came."""
        if stream.room < STREAM_WINDOW // 2:
            self._write(h2.window_frame(stream.number, STREAM_WINDOW - stream.room))
            stream.room = STREAM_WINDOW
        stream.wake()

    def end(self, stream: Stream) -> None:
        """Take the end of a request.

        Raises:
            StreamFault: The body is shorter than `content-length` says.
        """
        stream.ended = True
        if self._lengths.pop(stream.number, 0):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "DATA short of content-length")
        if stream.task is None:
            self.start(stream)
        else:
            stream.wake()

    def finish(self, stream: Stream) -> None:
        """Forget a stream whose answer is whole."""
        if not stream.ended:
            # The rest of the request is not wanted (section 8.1).
            self._write(h2.reset_frame(stream.number, ErrorCode.NO_ERROR))
            self.resets.append(stream.number)
        self._forget(stream)

    def drop(self, stream: Stream) -> None:
        """End a stream on which nothing more will be said."""
        self._forget(stream)
        self.sender.forget(stream)
        if stream.task is not None:
            stream.task.cancel()

    def drop_all(self) -> None:
        """End all streams: the connection is over."""
        for stream in tuple(self.values()):
            self.drop(stream)

    def reset(self, number: int, code: ErrorCode) -> None:
        """End a stream, open or not, and tell the peer why."""
        if (stream := self.get(number)) is not None:
            self.drop(stream)
        self.resets.append(number)
        self._write(h2.reset_frame(number, code))

    def reset_overdue(self, now: float) -> None:
        """End the streams whose peer has been given long enough to send the request or to read the answer."""
        for stream in tuple(self.values()):
            if stream.queue:
                if now - stream.moved > WRITE_SECONDS:
                    self.reset(stream.number, ErrorCode.CANCEL)
                continue
            allowed = REQUEST_SECONDS + len(stream.body) / FLOOR_BYTES_PER_SECOND
            if not stream.ended and not stream.accepted.at_once and now - stream.since > allowed:
                self.reset(stream.number, ErrorCode.CANCEL)

    def _refuse(self, stream: Stream, error: RequestError) -> None:
        """Answer a request with an error before its end came; the rest of it is ignored."""
        if stream.task is not None:
            stream.task.cancel()
        self._calls.refuse(stream, error)

    def _hold(self, count: int) -> None:
        self._peers.held_bytes += count

    def _forget(self, stream: Stream) -> None:
        self.pop(stream.number, None)
        self._lengths.pop(stream.number, None)
        self._peers.held_bytes -= len(stream.body) + stream.taken
