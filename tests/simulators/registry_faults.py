"""What passes between a client and the registry simulator, and how it can be spoiled."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Request:
    """One request as it arrived; header names are lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass
class Answer:
    """What is about to be sent; faults change it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Fault:
    """What goes wrong for the next ``times`` requests that match (None: for all)."""

    method: str
    path: re.Pattern[str]
    times: int | None = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    truncate: int | None = None
    """Close the connection after this many bytes of the body."""
    stall: int | None = None
    """Send this many bytes of the body, then nothing more."""
    trickle: tuple[int, float] | None = None
    """Send the body in pieces of so many bytes with so many seconds between."""
    corrupt: int | None = None
    """Flip the lowest bit of the byte at this place of the body."""
    body: bytes | None = None
    """Send this instead of the body."""
    extra: bytes = b""
    """Send this after the body, as if it belonged to it."""
    unframed: bool = False
    """Announce no length; the body ends with the connection."""
    redirect: str | None = None
    """Answer 307 to this base address plus the path."""
    hits: int = 0

    def matches(self, request: Request) -> bool:
        used_up = self.times is not None and self.hits >= self.times
        return not used_up and request.method == self.method and bool(self.path.search(request.path))
