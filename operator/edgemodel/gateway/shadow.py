"""Hands requests on to the active version, and afterwards a copy to the candidate, whose answer is compared and thrown away.

HAProxy sends the requests here that it drew (``shadow_configuration``). Promises

- The client's answer is the active version's, passed on byte by byte as it comes. A copy is made only when that has ended,
  with 200, so nothing of the candidate, nor of its slowness, is to be seen.
- What is held for copies is bounded: ``MAX_HELD`` bytes, ``MAX_COPIES`` at a time. Beyond that requests go through without a
  copy, and that is counted.
- An answer counts as the candidate's only if one of its pods gave it: HAProxy says which.

One request a connection: HAProxy is on both sides, so connections are cheap, and none is held across a reload.

Leaves to others: what agrees (``shadow_comparison``), what follows from it (the operator's gate).
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgemodel.gateway.routes import Route
from edgemodel.gateway.shadow_answers import Answer, Unreadable, read_answer
from edgemodel.gateway.shadow_comparison import Outcome, compare
from edgemodel.gateway.shadow_configuration import (
    MAX_REQUEST,
    PART,
    ROUTE,
    SERVER,
    agent_socket,
    pods_socket,
)
from edgemodel.gateway.shadow_metrics import ShadowMetrics, Trial

log = logging.getLogger(__name__)

MAX_ANSWER = 256 << 10
"""Bytes of an answer with its head; longer ones are not compared."""
MAX_HELD = 16 << 20
"""Bytes of requests and answers that are held for copies."""
MAX_COPIES = 32
"""Copies that the candidates have at the same time."""
COPY_SECONDS = 10.0
"""How long a candidate may take, or three times as long as the active version took."""
ASIDE = 64 << 10
"""Answers that are longer together are compared in a thread, so that no request waits for it."""
_PIECE = 64 << 10
_OK = 200
_FIELD = re.compile(rb"^(" + ROUTE.encode() + rb"|content-length):[ \t]*([^\r\n]*?)[ \t]*\r$", re.I | re.M)
_HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class _Target:
    """A candidate and its pods."""

    trial: Trial
    servers: frozenset[str]


@dataclass(slots=True)
class _Request:
    """One that is kept for a copy."""

    target: _Target
    head: bytes
    held: int
    body: bytes = b""
    answer: bytes = b""
    seconds: float = 0.0
    """How long the active version took."""


class Shadow:
    """See the module's docstring.

    Args:
        folder: where the sockets are.
        metrics: where outcomes are counted.
        head_bytes: longest head of a request.
        copy_seconds: what a candidate may take at least.
    """

    def __init__(
        self,
        folder: str,
        metrics: ShadowMetrics,
        *,
        head_bytes: int = _PIECE,
        copy_seconds: float = COPY_SECONDS,
    ) -> None:
        self._socket, self._pods = agent_socket(folder), pods_socket(folder)
        self._metrics = metrics
        self._head_bytes = max(_PIECE, head_bytes)
        self._copy_seconds = copy_seconds
        self._targets: dict[str, _Target] = {}
        self._server: asyncio.Server | None = None
        self._copies: set[asyncio.Task[None]] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self.held = 0
        """Bytes that are held for copies."""

    def follow(self, routes: Iterable[Route]) -> None:
        """Take over which candidates there are."""
        self._targets = {
            route.backend: _Target(
                Trial(route.namespace, route.name, route.candidate_digest),
                frozenset(server.name for server in route.candidate),
            )
            for route in routes
            if route.shadow > 0
        }
        self._metrics.follow(target.trial for target in self._targets.values())

    async def start(self) -> None:
        """Take requests.

        Raises:
            OSError: the socket cannot be made.
        """
        Path(self._socket).unlink(missing_ok=True)  # noqa: ASYNC240 - a moment, once
        self._server = await asyncio.start_unix_server(self._accept, self._socket, limit=self._head_bytes)
        Path(self._socket).chmod(0o600)  # noqa: ASYNC240

    async def stop(self) -> None:
        """Take none any more, and end what is under way."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._passing, *self._copies]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._passing.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._passing.discard(task)
            writer.close()  # by ourselves where it was cancelled before it began

        task.add_done_callback(ended)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith((b"GET ", b"OPTIONS ")):
                writer.write(_HEALTHY)
                await writer.drain()
                return
            fields = {name.lower(): value for name, value in _FIELD.findall(head)}
            length = fields.get(b"content-length", b"")
            if not length.isdigit():
                return  # not one that was drawn
            request = self._kept(fields.get(ROUTE.encode(), b"").decode("latin-1"), head, int(length))
            await self._pass_on(head, int(length), reader, writer, request)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            # Without an answer HAProxy asks again; within one the client is to see that it is cut off.
            writer.transport.abort()
        finally:
            writer.close()
            if request is not None and not self._copied(request):
                self.held -= request.held

    def _kept(self, route: str, head: bytes, length: int) -> _Request | None:
        """Return what is kept of a request, None where there is no candidate (any more), or no room."""
        target = self._targets.get(route)
        if target is None:
            return None
        need = len(head) + length + 2 * MAX_ANSWER
        if length > MAX_REQUEST or self.held + need > MAX_HELD or len(self._copies) >= MAX_COPIES:
            self._metrics.count(target.trial, "dropped")
            return None
        self.held += need
        return _Request(target, head, need)

    async def _pass_on(
        self,
        head: bytes,
        length: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: _Request | None,
    ) -> None:
        """Ask the active version, and pass its answer on as it comes."""
        began = time.perf_counter()
        body, answer = bytearray(), bytearray()
        pods, to_pods = await asyncio.open_unix_connection(self._pods)
        try:
            begin = _closing(head)
            while True:
                piece = await reader.read(min(length, _PIECE))
                if length > 0 and not piece:
                    raise EOFError
                length -= len(piece)
                to_pods.write(begin + piece)
                await to_pods.drain()
                begin = b""
                if request is not None:
                    body += piece
                if length <= 0:
                    break
            while piece := await pods.read(_PIECE):
                writer.write(piece)
                await writer.drain()
                if request is not None and len(answer) <= MAX_ANSWER:
                    answer += piece
        finally:
            to_pods.transport.abort()
        if not answer:
            raise EOFError
        if request is not None:
            request.body, request.answer = bytes(body), bytes(answer)
            request.seconds = time.perf_counter() - began
            spared = MAX_ANSWER - min(MAX_ANSWER, len(answer))
            request.held -= spared
            self.held -= spared

    def _copied(self, request: _Request) -> bool:
        """Begin a copy, if there is anything to compare it with; what it holds is given back at its end."""
        if not request.answer.startswith(b"HTTP/1.1 200 "):
            return False
        if len(self._copies) >= MAX_COPIES:
            self._metrics.count(request.target.trial, "dropped")
            return False
        copy = asyncio.ensure_future(self._copy(request))
        self._copies.add(copy)
        copy.add_done_callback(self._copies.discard)
        return True

    async def _copy(self, request: _Request) -> None:
        try:
            outcome, seconds = await self._outcome(request)
            self._metrics.count(request.target.trial, outcome, seconds)
        except Exception:
            # A mistake of ours, met by what a pod answered: the evidence lacks one request, and clients lack nothing.
            log.exception("a copy was not compared", extra={"model": request.target.trial.name})
        finally:
            self.held -= request.held

    async def _outcome(self, request: _Request) -> tuple[Outcome, float | None]:
        """Ask the candidate, and compare; return the seconds that it took, if it answered."""
        if len(request.answer) > MAX_ANSWER:
            return "incomparable", None
        began = time.perf_counter()
        try:
            async with asyncio.timeout(max(self._copy_seconds, 3 * request.seconds)):
                raw = await self._ask_candidate(request)
        except (OSError, EOFError, TimeoutError):
            return "unanswered", None
        seconds = time.perf_counter() - began
        if len(raw) > MAX_ANSWER:
            return "incomparable", seconds
        try:
            found = read_answer(raw)
        except Unreadable:
            return "unanswered", None
        if found.headers.get(SERVER) not in request.target.servers:
            return "unanswered", None
        return await _compared(request.answer, found), seconds

    async def _ask_candidate(self, request: _Request) -> bytes:
        """Return the candidate's answer; of one that is too long only so much that it shows."""
        pods, to_pods = await asyncio.open_unix_connection(self._pods)
        answer = bytearray()
        try:
            to_pods.write(_closing(request.head, f"{PART}: candidate\r\n".encode()) + request.body)
            await to_pods.drain()
            while len(answer) <= MAX_ANSWER and (piece := await pods.read(_PIECE)):
                answer += piece
        finally:
            to_pods.transport.abort()
        return bytes(answer)


async def _compared(active: bytes, candidate: Answer) -> Outcome:
    if len(active) + len(candidate.body) > ASIDE:
        return await asyncio.to_thread(_read_and_compare, active, candidate)
    return _read_and_compare(active, candidate)


def _read_and_compare(active: bytes, candidate: Answer) -> Outcome:
    try:
        expected = read_answer(active)
    except Unreadable:
        return "incomparable"
    return compare(expected, candidate) if expected.status == _OK else "incomparable"


def _closing(head: bytes, more: bytes = b"") -> bytes:
    """Return a request's head that asks for an end behind the answer."""
    return head[:-2] + more + b"connection: close\r\n\r\n"
