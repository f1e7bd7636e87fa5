"""What the connections of one server share: the handler, the clock's word for Date, and the memory of all bodies."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from inference_server.errors import NotReady
from inference_server.http.heads import Heads
from inference_server.http.messages import Handler

MAX_CONNECTIONS = 2048
BODIES_IN_MEMORY = 8


class Connection(Protocol):
    """What the process asks of a connection."""

    @property
    def busy(self) -> bool:
        """Whether an answer is due or being computed."""

    def abort(self) -> None:
        """Drop the connection at once."""

    def move_on(self) -> None:
        """Have the peer send its next requests elsewhere."""

    def close_if_idle(self) -> None:
        """Close a connection on which nothing is under way."""

    def overdue(self, now: float) -> bool:
        """Whether the peer has been given long enough."""


@dataclass(slots=True)
class Peers:
    """What the connections of one server share."""

    handler: Handler
    max_body_bytes: int
    most_connections: int = MAX_CONNECTIONS
    bodies_in_memory: int = BODIES_IN_MEMORY  # at a time, as a multiple of the largest one
    connections: set[Connection] = field(default_factory=set)
    heads: Heads = field(default_factory=Heads)
    held_bytes: int = 0  # bodies of all connections that are in memory now
    date: bytes = b""  # for the Date header; whoever owns the clock keeps it fresh
    closing: bool = False  # answer, and close the connection with the answer
    answered: Callable[[], None] = lambda: None  # told of each answer that was handed to a transport
    # Takes over a connection on which HTTP/2 is spoken, with the bytes that came; None refuses them.
    http2: Callable[["Peers", asyncio.Transport, bytes], None] | None = None

    def divide(self, processes: int) -> None:
        """Keep to one part of each bound, for so many processes serve together."""
        self.most_connections = max(1, self.most_connections // processes)
        self.bodies_in_memory = max(1, self.bodies_in_memory // processes)

    def charge(self, count: int) -> None:
        """Take bytes of a body into account.

        Raises:
            NotReady: All connections together hold as much as they may.
        """
        if self.held_bytes + count > self.bodies_in_memory * self.max_body_bytes:
            raise NotReady("too many large requests at the same time; try again shortly")
        self.held_bytes += count


class Share:
    """What one connection holds of that memory.

    Attributes:
        bodies: Bytes of bodies.
    """

    __slots__ = ("_peers", "_unread", "bodies")

    def __init__(self, peers: Peers) -> None:
        self.bodies = 0
        self._unread = 0
        self._peers = peers

    def charge(self, count: int) -> None:
        """Take bytes of a body into account before they are kept.

        Raises:
            NotReady: All connections together hold as much as they may.
        """
        self._peers.charge(count)
        self.bodies += count

    def takes(self, count: int) -> bool:
        """Charge bytes of a body if all connections together may hold them; return whether they may."""
        try:
            self.charge(count)
        except NotReady:
            return False
        return True

    def release(self, count: int) -> None:
        """Take bytes of bodies for given up."""
        self.bodies -= count
        self._peers.held_bytes -= count

    def keep_unread(self, count: int) -> None:
        """Count so many bytes of answers that the peer has not read, in place of those before."""
        self._peers.held_bytes += count - self._unread
        self._unread = count
