"""Clients of the benchmark ``hostile``: they send bad requests and calls in turn, and note every answer that is not right.

Now and then each does something to a connection of its own, which the server may answer or end: claim 10 GB, never finish,
hang up, send rubbish, flood it with frames that cost and say nothing.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, TypeVar
from urllib.parse import unquote

from hpack import Decoder

from inference_server.http2 import frames as h2
from inference_server.http2.headers import literal
from tests.server.bad_calls import BAD_CALLS, BadCall
from tests.server.bad_calls import INFER as CALL
from tests.server.bad_requests import BAD, BODY_BYTES, GOOD, INFER, BadRequest

EVERY = 100
"""Requests between two acts on a connection."""
PATIENCE = 20.0
UNFINISHED = 200
MOST_STREAMS = 1000
"""Of one connection, so that connections come and go here, too."""

Wrong = TypeVar("Wrong", BadRequest, BadCall)
Act = Callable[[int], Awaitable[None]]


class Client(Generic[Wrong]):
    """Sends one bad thing after the other.

    Attributes:
        wrong: answers that were not the right ones, in words, with how often.
        outcomes: statuses of HTTP, or codes of gRPC, with how often.
    """

    def __init__(self, port: int, kinds: Sequence[Wrong], acts: Sequence[Act], first: int) -> None:
        self.port = port
        self.wrong: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self._kinds: Sequence[Wrong] = kinds
        self._acts, self._turn = acts, first
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, count: int) -> None:
        """Send so many."""
        for number in range(count):
            bad = self._kinds[self._turn % len(self._kinds)]
            self._turn += 1
            try:
                outcome, right, message = await asyncio.wait_for(self._exchange(bad), PATIENCE)
            except (OSError, EOFError, TimeoutError) as error:
                self.wrong[f"{bad.name}: {type(error).__name__} {error}"] += 1
                self._close()
                continue
            self.outcomes[outcome] += 1
            if not right or bad.words not in message or "Traceback" in message:
                self.wrong[f"{bad.name}: {outcome} {message[:200]}"] += 1
            if number % EVERY == 0:
                act = self._acts[(self._turn // EVERY) % len(self._acts)]
                with contextlib.suppress(OSError, EOFError):  # the server may end any of them at once
                    await asyncio.wait_for(act(self.port), PATIENCE)
        self._close()

    async def _exchange(self, bad: Wrong) -> tuple[str, bool, str]:
        """Send one; return what it came to, whether that is right, and the message."""
        raise NotImplementedError

    async def _connect(self) -> asyncio.StreamWriter:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self._writer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class HttpClient(Client[BadRequest]):
    """By HTTP/1.1."""

    async def _exchange(self, bad: BadRequest) -> tuple[str, bool, str]:
        writer = self._writer or await self._connect()
        writer.write(bad.content)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        message = (await self._reader.readexactly(length)).decode("utf-8")
        if "\r\nconnection: close" in head:
            self._close()
        status = int(head.split()[1])
        return str(status), status == bad.status, message


class GrpcClient(Client[BadCall]):
    """By gRPC, one call at a time on a connection."""

    _stream = 1
    _decoder = Decoder()

    async def _exchange(self, bad: BadCall) -> tuple[str, bool, str]:
        if self._writer is None:
            await self._connect()
            assert self._writer is not None
            self._writer.write(h2.PREFACE + h2.settings_frame({}))
            self._decoder, self._stream = Decoder(), 1
        stream = self._stream
        self._stream += 2
        self._writer.write(call_frames(bad, stream))
        fields: dict[str, str] = {}
        while True:
            high, low, kind, flags, found = h2.HEAD.unpack(await self._reader.readexactly(h2.HEAD_BYTES))
            payload = await self._reader.readexactly(high << 16 | low)
            if kind == h2.HEADERS:
                fields |= {str(name): str(value) for name, value in self._decoder.decode(payload)}
            if kind == h2.GOAWAY or (kind == h2.RST_STREAM and found == stream):
                raise EOFError(f"frame {kind}: {payload!r}")
            if found == stream and flags & h2.END_STREAM and kind in (h2.HEADERS, h2.DATA):
                break
        if stream > MOST_STREAMS:
            self._close()
        code = fields.get("grpc-status", "none")
        return f"grpc {code}", code == str(int(bad.code)), unquote(fields.get("grpc-message", ""))


def call_frames(bad: BadCall, stream: int) -> bytes:
    """Return the frames of a call."""
    fields = {":method": "POST", ":scheme": "http", ":path": bad.path, ":authority": "x", "te": "trailers"}
    fields |= {"content-type": "application/grpc"}
    fields |= {name.replace("_", "-"): value for name, value in bad.headers.items()}
    block = literal((name.encode(), value.encode()) for name, value in fields.items())
    frames = [h2.frame(h2.HEADERS, h2.END_HEADERS, stream, block)]
    step = h2.DEFAULT_FRAME_BYTES
    for start in range(0, max(len(bad.content), 1), step):
        last = start + step >= len(bad.content)
        part = bad.content[start : start + step]
        frames.append(h2.frame(h2.DATA, h2.END_STREAM if last else 0, stream, part))
    return b"".join(frames)


# --- what is done to a connection; the server answers, or ends it ---


async def _ten_gigabytes(port: int) -> None:
    """Send a body as if it had 10 GB, until the server no longer takes it."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n".encode())
    try:
        for _ in range(16):
            writer.write(bytes(65536))
            await writer.drain()
    finally:
        writer.transport.abort()


async def _chunks_without_end(port: int) -> None:
    """Send chunks until they are more than a body may have."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    try:
        for _ in range(BODY_BYTES // 65536 + 1):
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()


async def _half_closed(port: int) -> None:
    """Send a whole request and the end of the stream with it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GOOD)
    writer.write_eof()
    await reader.read()
    writer.close()


async def _hung_up(port: int) -> None:
    """Send half of a request, and reset the connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GOOD[:300])
    await writer.drain()
    plain: socket.socket = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _gone_before_the_answer(port: int) -> None:
    """Ask, and leave."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GOOD)
    await writer.drain()
    writer.transport.abort()


async def _never_reads(port: int) -> None:
    """Send hundreds of requests at once and read no answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GOOD * 300)
    await asyncio.sleep(0.01)
    writer.transport.abort()


async def _rubbish(port: int) -> None:
    """Send random bytes, the beginning of a TLS handshake, a request to upgrade."""
    source = random.Random(port)
    upgrade = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + bytes(1000)
    for rubbish in (source.randbytes(2000), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", upgrade):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(rubbish)
        await asyncio.sleep(0.005)
        writer.transport.abort()


async def _say(port: int, frames: bytes) -> None:
    """Begin as HTTP/2, send frames, and wait for the server to end the connection; a second is enough."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(h2.PREFACE + h2.settings_frame({}) + frames)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(), 1.0)
    finally:
        writer.transport.abort()


_HEADERS = literal(
    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", CALL.encode()), (b":authority", b"x")]
)


async def _rubbish_for_frames(port: int) -> None:
    """Random bytes after a right preface."""
    await _say(port, random.Random(port).randbytes(5000))


async def _a_frame_of_16_mb(port: int) -> None:
    """A frame that is longer than was agreed upon."""
    await _say(port, b"\xff\xff\xff" + bytes([h2.DATA, 0, 0, 0, 0, 1]) + bytes(100_000))


async def _pings(port: int) -> None:
    """Thousands of frames that want an answer and say nothing."""
    await _say(port, h2.frame(h2.PING, 0, 0, bytes(8)) * 3000)


async def _settings(port: int) -> None:
    """Thousands of settings."""
    await _say(port, h2.settings_frame({}) * 3000)


async def _streams_taken_back(port: int) -> None:
    """Begin calls and take them back at once (CVE-2023-44487)."""
    reset = (
        h2.frame(h2.HEADERS, h2.END_HEADERS, stream, _HEADERS)
        + h2.frame(h2.RST_STREAM, 0, stream, h2.WORD.pack(8))
        for stream in range(1, 4000, 2)
    )
    await _say(port, b"".join(reset))


async def _headers_without_end(port: int) -> None:
    """A header block that goes on and on (CVE-2024-27316)."""
    begun = h2.frame(h2.HEADERS, 0, 1, _HEADERS)
    await _say(port, begun + h2.frame(h2.CONTINUATION, 0, 1, literal([(b"x", b"y" * 1000)])) * 500)


async def _headers_that_unpack(port: int) -> None:
    """A header that is put in the table once and named ten thousand times."""
    stored = b"\x40\x01x\x7f\x81\x1e" + b"y" * 3968
    begun = h2.frame(h2.HEADERS, 0, 1, _HEADERS + stored)
    await _say(port, begun + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, b"\xbe" * 10_000))


async def _empty_data(port: int) -> None:
    """Thousands of frames of data without any."""
    begun = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, _HEADERS)
    await _say(port, begun + h2.frame(h2.DATA, 0, 1, b"") * 3000)


async def _windows_beyond_all(port: int) -> None:
    """A window that is opened further than 2^31."""
    await _say(port, h2.window_frame(0, 2**31 - 1) * 2)


async def _calls_unfinished(port: int) -> None:
    """A hundred calls of which the end never comes, and a hang-up."""
    calls = [h2.frame(h2.HEADERS, h2.END_HEADERS, stream, _HEADERS) for stream in range(1, 200, 2)]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(h2.PREFACE + h2.settings_frame({}) + b"".join(calls))
    await asyncio.sleep(0.01)
    writer.transport.abort()


HTTP_ACTS: tuple[Act, ...] = (
    _ten_gigabytes,
    _chunks_without_end,
    _half_closed,
    _hung_up,
    _gone_before_the_answer,
    _never_reads,
    _rubbish,
)
GRPC_ACTS: tuple[Act, ...] = (
    _rubbish_for_frames,
    _a_frame_of_16_mb,
    _pings,
    _settings,
    _streams_taken_back,
    _headers_without_end,
    _headers_that_unpack,
    _empty_data,
    _windows_beyond_all,
    _calls_unfinished,
)


@contextlib.asynccontextmanager
async def unfinished(port: int) -> AsyncIterator[None]:
    """Keep connections open that have sent nothing, part of a head, part of a body, or a call without its end."""
    call = h2.PREFACE + h2.settings_frame({}) + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, _HEADERS)
    parts = (b"", b"POST ", f"POST {INFER} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode(), call)
    writers = []
    for number in range(UNFINISHED):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(parts[number % len(parts)])
        writers.append(writer)
    try:
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


async def worn_in(port: int, times: int = 40) -> None:
    """Do everything that can be done to a connection so many times."""
    for act in (*HTTP_ACTS, *GRPC_ACTS):
        for _ in range(times):
            with contextlib.suppress(OSError, EOFError):
                await asyncio.wait_for(act(port), PATIENCE)


def mixed(port: int, clients: int) -> list[HttpClient | GrpcClient]:
    """Return so many clients, each second one of gRPC, that begin at different kinds."""
    found: list[HttpClient | GrpcClient] = []
    for number in range(clients):
        share = number / clients
        if number % 2:
            found.append(GrpcClient(port, BAD_CALLS, GRPC_ACTS, int(share * len(BAD_CALLS))))
        else:
            found.append(HttpClient(port, BAD, HTTP_ACTS, int(share * len(BAD))))
    return found
