"""Holds HAProxy's listening sockets in a container of its own: they outlive the gateway's, and clients wait in them.

The supervisor (``deposit``) connects to a socket in the state folder and stays connected. It is sent first what is held: so
one that starts gets what another left. Then it sends what is to be held instead, whenever that changes; nothing, when it
lets go or ends. Both in the messages of ``held``.

Promises
- When the connection ends while something is held, the supervisor has died. Its sockets are held for ``HOLD_SECONDS`` more:
  the kubelet may have started the container anew by then. Otherwise clients are rather refused, and go to another gateway,
  than kept waiting.
- Who connects last is listened to; the connection of before is closed. Nonsense ends a connection, and is its end.
- SIGTERM is the pod's end. The supervisor drains then, as long as it takes, and this one ends with it: as soon as nothing
  is held, and at once when the supervisor dies, whom nobody starts again.
- It does not end otherwise. A folder where no socket can be made is told, and borne: an end would make the pod unready.

Leaves to others: what becomes of the sockets. Only the gateway's user may connect (mode 0600); who does is one of its
processes. Run as ``python3 -S -P -c LAUNCH FOLDER``; imports next to nothing, as it lies in memory for
ever.
"""

import _signal as signal  # type: ignore[import-not-found] # ``signal`` and ``socket`` bring enum and collections: 3 of 7 MB
import os
import select
import sys
import time
from _socket import socket

from edgemodel.gateway.held import ASK_SECONDS, HOLD_SECONDS, KEEPER_SOCKET, close, listen_at, receive, send
from edgemodel.gateway.log_line import say

LAUNCH = "import edgemodel.gateway.keeper as it; it.main()"
"""The program. (Python's ``-m`` would bring more than all that is here.)"""
_ENDS = (signal.SIGTERM, signal.SIGINT)


class Keeper:
    """See the module's docstring.

    Args:
        path: of the socket to which the supervisor connects.
        hold_seconds: for so long sockets outlive their supervisor.
    """

    def __init__(self, path: str, hold_seconds: float) -> None:
        self._hold_seconds = hold_seconds
        self._sockets: list[socket] = []
        self._connection: socket | None = None
        self._until = 0.0
        """When sockets without a supervisor are let go of (monotonic)."""
        self._ending = False
        # Before the path is there: from then on SIGTERM is heeded.
        self._signalled, tell = os.pipe()
        for end in (self._signalled, tell):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(tell)
        for number in _ENDS:
            signal.signal(number, self._end)
        self._listener = listening(path)

    def run(self) -> None:
        """Run until SIGTERM, and until nothing is held then."""
        while self._sockets or not self._ending:
            for descriptor in self._ready():
                if descriptor == self._signalled:
                    os.read(descriptor, 64)
                elif self._connection is not None and descriptor == self._connection.fileno():
                    self._hear(self._connection)
                elif descriptor == self._listener.fileno():
                    self._meet()
            alone = self._connection is None and self._sockets
            if alone and (self._ending or time.monotonic() >= self._until):
                say("warning", "HAProxy's sockets are let go of: the supervisor is not back", by="keeper")
                self._replace([])

    def _ready(self) -> list[int]:
        """Wait for something to happen; return the descriptors that have it, the connection's first."""
        waiting = select.poll()
        left = None
        if self._connection is not None:
            waiting.register(self._connection, select.POLLIN)
        elif self._sockets:
            left = 1000 * max(0.0, self._until - time.monotonic())
        waiting.register(self._listener, select.POLLIN)
        waiting.register(self._signalled, select.POLLIN)
        ready = {descriptor for descriptor, _ in waiting.poll(left)}
        first = -1 if self._connection is None else self._connection.fileno()
        return sorted(ready, key=lambda descriptor: descriptor != first)

    def _meet(self) -> None:
        connection = None
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined] # noqa: SLF001 - accept() is of ``socket``
            connection = socket(fileno=descriptor)
            connection.settimeout(ASK_SECONDS)
            send(connection, self._sockets)
        except OSError as error:
            say("warning", f"who connected does not take HAProxy's sockets: {error}", by="keeper")
            if connection is not None:
                connection.close()
            return
        if self._connection is not None:
            self._connection.close()
        self._connection = connection

    def _hear(self, connection: socket) -> None:
        try:
            self._replace(receive(connection))
        except ConnectionResetError:
            self._leave(connection)
        except (OSError, ValueError) as error:
            say("warning", f"what is said of HAProxy's sockets makes no sense: {error}", by="keeper")
            self._leave(connection)

    def _leave(self, connection: socket) -> None:
        connection.close()
        self._connection = None
        self._until = time.monotonic() + self._hold_seconds
        if self._sockets:
            say("warning", f"the supervisor is gone; {len(self._sockets)} sockets are held", by="keeper")

    def _replace(self, sockets: list[socket]) -> None:
        before, self._sockets = self._sockets, sockets
        close(before)

    def _end(self, _number: int, _frame: object) -> None:
        self._ending = True


def listening(path: str) -> socket:
    """Return a socket that listens at a path; it is renamed to it, so that a supervisor that runs is told of it.

    Raises:
        OSError: it cannot be made.
    """
    new = f"{path}.new"
    listener = listen_at(new, 8)
    listener.setblocking(False)
    os.replace(new, path)
    return listener


def main() -> None:
    """Run with the state folder."""
    (folder,) = sys.argv[1:]
    # Until it is clear who heeds them; process 1 is not even told of a signal that it neither handles nor blocks.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        keeper = Keeper(f"{folder}/{KEEPER_SOCKET}", HOLD_SECONDS)
    except OSError as error:
        say("error", f"nothing is held: no socket can be made in {folder}: {error.strerror}", by="keeper")
        signal.sigwait(_ENDS)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        keeper.run()
