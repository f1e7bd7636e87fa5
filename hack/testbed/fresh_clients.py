"""Clients that open a connection for each request, ten a second: who finds out at once where a Service leads now.

Clients that keep their connections find out only as these break; what becomes of them is seen by ``testbed.load``.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

EVERY = 0.1
PATIENCE = 3.0
"""Seconds until a client gives up."""
LATE = 0.9
"""Seconds from which on an answer counts as late: a first packet that was lost is sent again after one."""


@dataclass
class FreshClients:
    """What became of them: (POSIX time of the request's begin, seconds it took, answered)."""

    seen: list[tuple[float, float, bool]] = field(default_factory=list)

    def last_trouble(self, since: float) -> float:
        """Return when the last request began that was answered late or not at all, in seconds after ``since``; 0: none."""
        return max((at - since for at, took, fine in list(self.seen) if not fine or took > LATE), default=0.0)

    def share_in_trouble(self, since: float, until: float) -> float:
        """Return the part of the requests begun in that time that were answered late or not at all."""
        found = [not fine or took > LATE for at, took, fine in list(self.seen) if since <= at < until]
        return sum(found) / len(found) if found else 0.0

    def count(self, since: float) -> int:
        """Return how many requests that began after ``since`` are over."""
        return sum(at >= since for at, _, _ in list(self.seen))


@contextmanager
def fresh_clients(url: str, body: str) -> Iterator[FreshClients]:
    """Send ``body`` to ``url`` all the time while the block lasts."""
    clients, stop, where = FreshClients(), threading.Event(), urlsplit(url)

    def ask() -> None:
        began = time.time()
        connection = HTTPConnection(where.hostname or "", where.port or 80, timeout=PATIENCE)
        try:
            connection.request("POST", where.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            fine = answer.status == 200
        except (OSError, HTTPException):
            fine = False
        finally:
            connection.close()
        clients.seen.append((began, time.time() - began, fine))

    with ThreadPoolExecutor(max_workers=64) as pool:

        def go_on() -> None:
            while not stop.wait(EVERY):
                pool.submit(ask)

        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        try:
            yield clients
        finally:
            stop.set()
            thread.join(timeout=10)
