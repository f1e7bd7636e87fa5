"""One request of an HTTP/2 connection and its answer, as the code that answers sees it; and who may send how much.

Promises that nothing is sent beyond the windows that the peer gave (RFC 9113 section 5.2), that streams with much to
say take turns, frame by frame, and that an answer waits here, in one piece, while the peer does not read.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from inference_server.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    MAX_WINDOW,
    ConnectionFault,
    ErrorCode,
    PeerSettings,
    StreamFault,
)

if TYPE_CHECKING:
    from inference_server.http2.calls import Accepted


# In place of the flags of a header block.
SOME_DATA, LAST_DATA = -1, -2


class Stream:
    """A request, complete or on its way.

    Attributes:
        number: The stream's identifier.
        accepted: What was made of its headers.
        begun: Whether the first header block of an answer in pieces was handed over.
        body: What came of its body.
        ended: Whether the body is complete.
        since: Moment of the loop's clock at which its headers came.
        room: Bytes that the peer may still send on it.
        window: Bytes that may still be sent on it.
        task: What answers it; None before and after.
        taken: Bytes taken out of `body` that the connection still counts.
    """

    __slots__ = (
        "_more", "_sender", "accepted", "begun", "body", "ended", "moved", "number", "queue", "room", "since", "taken",
        "task", "window",
    )  # fmt: skip

    def __init__(self, number: int, accepted: "Accepted", sender: "Sender", room: int, now: float) -> None:
        self.number = number
        self.accepted = accepted
        self.begun = False
        self.body = bytearray()
        self.ended = False
        self.since = now
        self.room = room
        self.window = sender.peer.initial_window
        self.task: asyncio.Task[None] | None = None
        self.taken = 0
        self.queue: deque[tuple[int, memoryview]] | None = None
        self.moved = now  # when something of the queue was sent last
        self._sender = sender
        self._more: asyncio.Future[None] | None = None

    # --- for who answers ---

    def answer(self, head: bytes, data: bytes, trailers: bytes) -> None:
        """Send a whole answer: a header block, data, and a header block after it."""
        self._sender.answer(self, head, data, trailers)

    def begin(self, head: bytes) -> None:
        """Send the header block of an answer that comes in pieces."""
        self.begun = True
        self._sender.push(self, END_HEADERS, head)

    def send(self, data: bytes) -> None:
        """Send a piece."""
        self._sender.push(self, SOME_DATA, data)

    def finish(self, data: bytes) -> None:
        """Send the last piece of an answer that has no trailers."""
        self._sender.push(self, LAST_DATA, data)

    def end(self, block: bytes) -> None:
        """Send the last header block; of an answer without data it is the first one as well."""
        self._sender.push(self, END_HEADERS | END_STREAM, block)

    def take(self, size: int) -> None:
        """Drop the first bytes of the body: they are dealt with."""
        del self.body[:size]
        self.taken += size

    async def changed(self) -> None:
        """Wait until more of the body came, or its end, or all that was sent has left."""
        self._more = asyncio.get_running_loop().create_future()
        await self._more

    # --- for the connection ---

    def wake(self) -> None:
        """Let `changed` return."""
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class Sender:
    """The sending half of a connection.

    Args:
        write: Hands bytes to the transport.
        finished: Called with a stream when the end of its answer was written.
        held: Told how many bytes more are kept here, or fewer: answers that are not read count as bodies do.
        clock: The loop's.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        finished: Callable[[Stream], None],
        held: Callable[[int], None],
        clock: Callable[[], float],
    ) -> None:
        self.peer = PeerSettings()
        self.window = DEFAULT_WINDOW
        self.paused = False
        self.waiting: dict[int, Stream] = {}
        self._write = write
        self._finished = finished
        self._held = held
        self._clock = clock

    def answer(self, stream: Stream, head: bytes, data: bytes, trailers: bytes) -> None:
        """Send a whole answer; in one write when the windows allow."""
        size = len(data)
        if (
            self.paused
            or stream.queue
            or size > self.window
            or size > stream.window
            or size > self.peer.frame_bytes
        ):
            self.push(stream, END_HEADERS, head)
            self.push(stream, SOME_DATA, data)
            self.push(stream, END_HEADERS | END_STREAM, trailers)
            return
        self.window -= size
        number = stream.number
        self._write(
            b"".join(
                (
                    HEAD.pack(0, len(head), HEADERS, END_HEADERS, number),
                    head,
                    HEAD.pack(size >> 16, size & 0xFFFF, DATA, 0, number),
                    data,
                    HEAD.pack(0, len(trailers), HEADERS, END_HEADERS | END_STREAM, number),
                    trailers,
                )
            )
        )
        self._finished(stream)

    def push(self, stream: Stream, flags: int, payload: bytes) -> None:
        """Queue a header block (with its flags) or data (SOME_DATA, LAST_DATA), and send what may be sent."""
        if stream.queue is None:
            stream.queue = deque()
        if not stream.queue:
            stream.moved = self._clock()
        stream.queue.append((flags, memoryview(payload)))
        self._held(len(payload))
        self.waiting[stream.number] = stream
        self.flush()

    def flush(self) -> None:
        """Send what the windows and the transport take, a frame of each stream in turn."""
        moving = True
        while moving and self.waiting and not self.paused:
            moving = False
            for stream in tuple(self.waiting.values()):
                moving = self._send_one(stream) or moving
                if self.paused:
                    return

    def forget(self, stream: Stream) -> None:
        """Send nothing more of a stream."""
        self.waiting.pop(stream.number, None)
        if stream.queue:
            self._held(-sum(len(payload) for _, payload in stream.queue))
        stream.queue = None

    def widen(self, stream: Stream | None, increment: int) -> None:
        """Take a WINDOW_UPDATE of a stream, or of the connection.

        Raises:
            StreamFault, ConnectionFault: The window passes 2^31-1 (section 6.9.1).
        """
        if stream is None:
            self.window += increment
            if self.window > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "window: expected below 2^31")
        else:
            stream.window += increment
            if stream.window > MAX_WINDOW:
                raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "window: expected below 2^31")
        if self.waiting:
            self.flush()

    def _send_one(self, stream: Stream) -> bool:
        """Send one frame of a stream; return whether that was possible."""
        queue = stream.queue
        assert queue
        flags, payload = queue[0]
        if flags >= 0:
            size = len(payload)
            queue.popleft()
            self._write(HEAD.pack(size >> 16, size & 0xFFFF, HEADERS, flags, stream.number) + payload)
        else:
            size = min(len(payload), self.window, stream.window, self.peer.frame_bytes)
            if size <= 0 < len(payload):
                return False
            self.window -= size
            stream.window -= size
            if size < len(payload):
                queue[0] = (flags, payload[size:])
            else:
                queue.popleft()
            ends = END_STREAM if flags == LAST_DATA and not queue else 0
            self._write(HEAD.pack(size >> 16, size & 0xFFFF, DATA, ends, stream.number) + payload[:size])
        self._held(-size)
        stream.moved = self._clock()
        if not queue:
            self.waiting.pop(stream.number, None)
            if flags == LAST_DATA or (flags != SOME_DATA and flags & END_STREAM):
                self._finished(stream)
            else:
                stream.wake()
        return True
