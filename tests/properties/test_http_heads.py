"""A connection that remembers heads makes the same of any bytes as one that parses each."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from inference_server.http.connection import HttpConnection
from inference_server.http.heads import Heads
from inference_server.http.messages import Request, Response
from inference_server.http.peers import Peers

LINES = [
    b"POST /a HTTP/1.1\r\n",
    b"GET /b HTTP/1.1\r\n",
    b"POST /a HTTP/1.0\r\n",
    b"\r\nPOST /a HTTP/1.1\r\n",
    b"HEAD /\r\n",
]
HEADERS = [
    b"Content-Length: 3\r\n", b"Content-Length: 4\r\n", b"Content-Length: 04\r\n", b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"X: y\r\n", b"Kept: a\r\n", b"Kept: b\r\n",
]  # fmt: skip
BODIES = [b"", b"abc", b"abcd", b"3\r\nabc\r\n0\r\n\r\n", b"0\r\n\r\n", b"\r\n\r\n", b"\r\n\r"]
MESSAGES = st.builds(
    lambda line, headers, body: line + b"".join(headers) + b"\r\n" + body,
    st.sampled_from(LINES),
    st.lists(st.sampled_from(HEADERS), max_size=3),
    st.sampled_from(BODIES),
)
SEGMENTS = st.lists(
    MESSAGES
    | st.tuples(MESSAGES, MESSAGES).map(b"".join)
    | st.tuples(MESSAGES, st.integers(0, 60)).map(lambda cut: cut[0][: cut[1]])
    | st.tuples(MESSAGES, st.integers(0, 60)).map(lambda cut: cut[0][cut[1] :]),
    max_size=5,
)


class Forgetful(Heads):
    """Remembers nothing."""

    def find(self, data: bytes) -> Request | None:
        return None


class Handler:
    """Notes what it is asked, and answers at once."""

    looks_at = frozenset({b"kept"})

    def __init__(self) -> None:
        self.asked: list[object] = []

    def tensors_at(self, headers: object) -> int:
        return 0

    def at_once(self, request: Request) -> Response | None:
        return None

    async def handle(self, request: Request) -> Response:
        self.asked.append((request.method, request.target, dict(request.headers), bytes(request.body)))
        return Response(200, (b"{}",))

    def refuse(self, request: Request | None, error: Exception) -> Response:
        self.asked.append(str(error))
        return Response(400, (b"{}",))


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.wrote: list[bytes | str] = []

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.wrote.append(bytes(data))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.wrote.append("close")

    def pause_reading(self) -> None:
        """Nothing: all comes anyway."""

    def resume_reading(self) -> None:
        """Nothing."""


async def said(peers: Peers, segments: list[bytes]) -> object:
    """Return what one connection asks the handler and answers."""
    peers.handler = handler = Handler()
    connection, transport = HttpConnection(peers, asyncio.get_running_loop()), Transport()
    connection.connection_made(transport)
    for segment in segments:
        connection.data_received(segment)
        for _ in range(4):  # turns of the loop: two requests in a segment are answered in two
            await asyncio.sleep(0)
    connection.connection_lost(None)
    return handler.asked, transport.wrote, peers.held_bytes


@given(before=SEGMENTS, segments=SEGMENTS)
@settings(max_examples=500, deadline=None)
def test_what_is_remembered_changes_nothing(before: list[bytes], segments: list[bytes]) -> None:
    async def both() -> tuple[object, object]:
        remembering, parsing = Peers(Handler(), 4096), Peers(Handler(), 4096, heads=Forgetful())
        await said(remembering, [*before, *segments])
        for segment in segments:
            await said(remembering, [segment])
        return await said(remembering, segments), await said(parsing, segments)

    remembered, parsed = asyncio.run(both())
    assert remembered == parsed
