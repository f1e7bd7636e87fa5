"""One HTTP/1.1 connection: bytes ↔ `Request` and `Response`, on top of llhttp (the parser of Node.js).

Promises: requests of a connection are answered one after the other and in order; a head or body past its
cap is refused before it is stored; a peer that trickles, stalls or never reads is cut off (`overdue`);
whatever the bytes, the peer gets an answer or a closed connection; a large body is read into its final place
(`body`), and large parts of an answer are written from where they lie. Knows no path and no JSON: it calls
a `Handler`. Why not a ready-made server: docs/adr/0007-http-server.md.
"""

import asyncio
import logging
from collections import deque
from typing import cast

import httptools

from inference_server.errors import BodyTooLarge, HeaderTooLarge, InvalidRequest, RequestError
from inference_server.http.body import LARGE_BYTES, BodyReceiver, LargeBody
from inference_server.http.eager import begin
from inference_server.http.limits import FLOOR_BYTES_PER_SECOND, IDLE_SECONDS, REQUEST_SECONDS, WRITE_SECONDS
from inference_server.http.messages import Request, Response, Turn, pieces
from inference_server.http.peers import Peers, Share

logger = logging.getLogger(__name__)

HEAD_BYTES = 32 * 1024
# After a refusal the rest of a body is read and dropped for so long; closing at once would reset the
# connection and could take the answer with it (RFC 9112 section 9.6).
LINGER_SECONDS = 2.0
_MAX_HEADERS = 100

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# What this module looks at, beside what the handler does.
_LOOKED_AT = frozenset({b"content-length", b"expect"})


class HttpConnection(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, peers: Peers, loop: asyncio.AbstractEventLoop) -> None:
        self._peers = peers
        self._share = Share(peers)
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._looked_at = peers.handler.looks_at | _LOOKED_AT
        self._transport: asyncio.Transport | None = None
        self._turns: deque[Turn] = deque()
        self._answering = False
        self._task: asyncio.Task[None] | None = None  # what answers, once it has to wait
        self._current: Request | None = None
        self._chunks: list[bytes] = []
        self._large: LargeBody | None = None
        self._keep_alive = True
        self._body_bytes = 0
        self._head_bytes = 0
        self._headers = self._header_bytes = 0
        self._barren_bytes = 0  # arrived since the last byte of a body: chunk sizes, trailers
        self._in_head = True
        self._paused = False
        self._deaf = False  # nothing that still arrives is looked at
        # Of the first bytes, while they may be the preface of HTTP/2 (RFC 9113 section 3.4).
        self._opening: bytes | None = b"" if peers.http2 is not None else None
        self._since = loop.time()
        self._writing_since: float | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start listening to an accepted connection."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        if len(self._peers.connections) >= self._peers.most_connections:
            transport.abort()
        self._peers.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and drop the request being answered: nobody would read the answer."""
        del exc
        self._peers.connections.discard(self)
        self._transport = None
        self._deaf = True
        self._turns.clear()
        self._large = None
        self._share.release(self._share.bodies)
        self._share.keep_unread(0)
        if self._task is not None:
            self._task.cancel()

    def eof_received(self) -> bool:
        """Take the end of what the peer sends for its leaving, as nginx does.

        A half-closed peer might still read, but on the wire it looks like one that gave up, and those are many:
        computing for every client that timed out is how an overload stays one.
        """
        return False

    def pause_writing(self) -> None:
        """Note that the peer does not read; what waits for it is in memory as bodies are."""
        self._writing_since = self._loop.time()
        self._writable.clear()
        if self._transport is not None:
            self._share.keep_unread(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Note that it reads again."""
        self._writing_since = None
        self._writable.set()
        self._share.keep_unread(0)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        if self._deaf:
            return
        if self._opening is not None:
            data = self._opening + data
            self._opening = data if len(data) < len(_PREFACE) and _PREFACE.startswith(data) else None
            if self._opening is not None:
                return
            if data.startswith(_PREFACE):
                self._hand_over(data)
                return
        was_busy, was_in_body, body_bytes = self.busy, not self._in_head, self._body_bytes
        between = self._current is None and not was_busy
        if between and (request := self._peers.heads.find(data)):
            if self._writing_since is None and not self._peers.closing:
                response = self._peers.handler.at_once(request)
                if response is not None:
                    self._since = self._loop.time()
                    self._write(request, response, True)
                    self._peers.answered()
                    return
            if self._share.takes(len(request.body)):
                self._turns.append(Turn(request, True))
                self._serve()
                return
        if self._in_head:
            if self._head_bytes == 0:
                self._since = self._loop.time()
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # A request to upgrade may be ignored (RFC 9110 section 7.8), but what follows it may be anything.
            self._deaf = True
            if self._turns:
                self._turns[-1].keep_alive = False
        except httptools.HttpParserCallbackError as error:
            refusal = error.__context__
            self._refuse(
                refusal if isinstance(refusal, RequestError) else InvalidRequest("malformed HTTP request")
            )
        except httptools.HttpParserError as error:
            self._refuse(InvalidRequest(f"malformed HTTP request: {error}"))
        else:
            if was_in_body and not self._in_head and self._body_bytes == body_bytes:
                self._barren_bytes += len(data)
            else:
                self._barren_bytes = 0
            if between and self._current is None and len(self._turns) == 1 and self._turns[0].keep_alive:
                self._peers.heads.keep(data, cast(Request, self._turns[0].request))
            # The parser keeps an unfinished header or trailer until its end comes.
            if (self._in_head and self._head_bytes > HEAD_BYTES) or self._barren_bytes > HEAD_BYTES:
                self._refuse(HeaderTooLarge(f"request line and headers: expected at most {HEAD_BYTES} bytes"))
        self._serve()
        if self._large is not None and self._transport is not None:
            self._read_into(BodyReceiver(self._large, self, self._straight_received))
        if was_busy and not self._deaf and self._transport is not None:
            # What a client sends before its answer waits in the kernel's buffer, not in ours.
            self._paused = True
            self._transport.pause_reading()

    # --- the rest of a large body ---

    def _read_into(self, protocol: asyncio.BaseProtocol) -> None:
        assert self._transport is not None
        # uvloop chooses how it reads when it starts to.
        self._transport.pause_reading()
        self._transport.set_protocol(protocol)
        self._transport.resume_reading()

    def _straight_received(self, count: int) -> None:
        """Note bytes of a large body that the kernel put into their place."""
        body = self._large
        if body is None:  # refused or lost, and the transport had not heard of it
            return
        self._body_bytes += count
        try:
            body.filled(count)
        except RequestError as error:
            self._refuse(error)
        else:
            if not body.complete:
                return
            # The old parser still waits for this body.
            self._parser = httptools.HttpRequestParser(self)
            self._complete()
        self._read_into(self)
        self._serve()

    # --- httptools callbacks ---

    def on_message_begin(self) -> None:
        """Start a request."""
        self._current = Request("", b"")
        self._chunks = []
        self._body_bytes = 0
        self._headers = self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Collect the request target; it may come in pieces."""
        assert self._current is not None
        self._current.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header that somebody looks at."""
        self._headers += 1
        if self._headers > _MAX_HEADERS:
            raise HeaderTooLarge(f"headers: expected at most {_MAX_HEADERS}")
        self._header_bytes += len(name) + len(value)
        name = name.lower()
        if name in self._looked_at:
            assert self._current is not None
            self._current.headers[name] = value

    def on_headers_complete(self) -> None:
        """Judge the head before any byte of the body is kept."""
        request = self._current
        assert request is not None
        self._in_head = False
        request.method = self._parser.get_method().decode("ascii", "replace")
        found = len(request.target) + self._header_bytes
        if found > HEAD_BYTES:
            raise HeaderTooLarge(
                f"request line and headers: expected at most {HEAD_BYTES} bytes, found {found}"
            )
        announced = request.headers.get(b"content-length", b"")
        length = int(announced[:20]) if announced.isdigit() else 0
        if length > self._peers.max_body_bytes:
            raise self._too_large(f"{announced.decode('ascii')[:20]}")
        if self.busy:
            return
        if length > LARGE_BYTES and not self._parser.should_upgrade():
            self._keep_alive = self._parser.should_keep_alive()
            self._large = LargeBody(
                length, self._peers.handler.tensors_at(request.headers), self._share.charge
            )
        if request.headers.get(b"expect", b"").lower() == b"100-continue" and self._transport:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._body_bytes += len(body)
        if self._large is not None:
            self._large.put(body)
            return
        if self._body_bytes > self._peers.max_body_bytes:
            raise self._too_large("more")
        self._share.charge(len(body))
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Queue the request for its turn."""
        self._keep_alive = self._parser.should_keep_alive()
        self._complete()

    # --- answering ---

    @property
    def busy(self) -> bool:
        """Whether an answer is due or being computed."""
        return self._answering or bool(self._turns)

    @property
    def mid_request(self) -> bool:
        """Whether part of a request has arrived."""
        return not self._deaf and (self._head_bytes > 0 or not self._in_head)

    def move_on(self) -> None:
        """Nothing: the next answer says `Connection: close`."""

    def close_if_idle(self) -> None:
        """Close a connection on which nothing is under way."""
        if self._transport is not None and not self.busy and not self.mid_request:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def overdue(self, now: float) -> bool:
        """Whether the peer has been given long enough."""
        if self._writing_since is not None and now - self._writing_since > WRITE_SECONDS:
            return True
        if self.busy:
            return False
        if self._deaf:
            return now - self._since > LINGER_SECONDS
        if self.mid_request:
            return now - self._since > REQUEST_SECONDS + self._body_bytes / FLOOR_BYTES_PER_SECOND
        return now - self._since > IDLE_SECONDS

    def _serve(self) -> None:
        if self._turns and not self._answering:
            self._answering = True
            task = begin(self._answer(), self._loop)
            if self._answering:
                self._task = task

    def _complete(self) -> None:
        """Queue the request that is complete now."""
        request = self._current
        assert request is not None
        chunks = self._chunks
        if self._large is not None:
            request.body = self._large.content
            self._large = None
        else:
            request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._current = None
        self._in_head = True
        self._head_bytes = 0
        self._turns.append(Turn(request, self._keep_alive))

    def _hand_over(self, data: bytes) -> None:
        """Leave the connection to HTTP/2."""
        transport = self._transport
        assert transport is not None
        assert self._peers.http2 is not None
        self._peers.connections.discard(self)
        self._transport, self._deaf = None, True
        self._peers.http2(self._peers, transport, data)

    def _too_large(self, found: str) -> BodyTooLarge:
        return BodyTooLarge(f"body: expected at most {self._peers.max_body_bytes} bytes, found {found}")

    def _refuse(self, error: RequestError) -> None:
        """Answer the unfinished request with an error, after those before it, and read no further."""
        self._deaf = True
        self._share.release(sum(map(len, self._chunks)))
        self._chunks = []
        if self._large is not None:
            self._share.release(self._large.charged)
            self._large = None
        self._turns.append(Turn(self._current, False, error))
        self._current = None

    async def _answer(self) -> None:
        """Answer everything whose turn has come."""
        try:
            while self._turns and self._transport is not None:
                if self._writing_since is not None:
                    await self._writable.wait()
                    continue
                turn = self._turns.popleft()
                if turn.error is not None:
                    response = self._peers.handler.refuse(turn.request, turn.error)
                else:
                    assert turn.request is not None
                    response = await self._peers.handler.handle(turn.request)
                    self._share.release(min(self._share.bodies, len(turn.request.body)))
                keep_alive = turn.keep_alive and not self._peers.closing
                self._write(turn.request, response, keep_alive)
                self._peers.answered()
                if not keep_alive:
                    self._finish(lingering=turn.error is not None)
                    return
                if self._turns:
                    # One segment may hold thousands of requests: others get their turn in between.
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._transport is not None:
                raise
        except Exception:
            # A fault of ours: whoever waits for the answer is better off with an end than with silence.
            logger.exception("a request has no answer")
            self.abort()
        finally:
            self._answering = False
            self._task = None
            self._since = self._loop.time()
        if self._transport is not None and self._deaf:
            self._transport.close()
        elif self._transport is not None and self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _write(self, request: Request | None, response: Response, keep_alive: bool) -> None:
        assert self._transport is not None
        # uvloop hands all of them to the kernel in one call at the end of this turn of the loop.
        for piece in pieces(request, response, self._peers.date, keep_alive):
            self._transport.write(piece)

    def _finish(self, lingering: bool) -> None:
        """Close after the answer that was written."""
        self._deaf = True
        self._turns.clear()
        if self._transport is None:
            return
        if lingering and self._transport.can_write_eof():
            # The peer may be in the middle of sending: let it see the answer; `overdue` ends it.
            self._transport.write_eof()
        else:
            self._transport.close()
