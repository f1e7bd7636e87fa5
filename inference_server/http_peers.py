"""What the connections of one server share: the handler, the clock's word for Date, and the memory of all bodies."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inference_server.errors import NotReady
from inference_server.http_messages import Handler

if TYPE_CHECKING:
    from inference_server.http_connection import HttpConnection

MAX_CONNECTIONS = 2048
# All bodies in memory at a time, as a multiple of the largest one.
BODIES_IN_MEMORY = 8


@dataclass(slots=True)
class Peers:
    """What the connections of one server share."""

    handler: Handler
    max_body_bytes: int
    connections: "set[HttpConnection]" = field(default_factory=set)
    held_bytes: int = 0  # bodies of all connections that are in memory now
    date: bytes = b""  # for the Date header; whoever owns the clock keeps it fresh
    closing: bool = False  # answer, and close the connection with the answer

    def charge(self, count: int) -> None:
        """Take bytes of a body into account.

        Raises:
            NotReady: All connections together hold as much as they may.
        """
        if self.held_bytes + count > BODIES_IN_MEMORY * self.max_body_bytes:
            raise NotReady("too many large requests at the same time; try again shortly")
        self.held_bytes += count
