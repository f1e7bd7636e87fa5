"""The supervisor's side of the keeper: what it has it hold, and what it gets back after the container's death.

Promises: without a keeper, or with one that hangs or talks nonsense, nothing is different but for the sockets' being held
beside this process; it is said once. A keeper that is back is found at the next call, and told anew.
Leaves to others: the protocol (``held``), how long is held (``keeper``), which sockets (``supervisor``).
Imports next to nothing, as it lies in memory for ever.
"""

import time
from _socket import AF_UNIX, MSG_PEEK, SOCK_STREAM, socket

from edgemodel.gateway.held import ASK_SECONDS, close, receive, send
from edgemodel.gateway.log_line import say

AGAIN_SECONDS = 30.0
"""A keeper that took its time, or talked nonsense, is left alone for so long."""


class Deposit:
    """See the module's docstring.

    Args:
        path: of the keeper's socket; nothing need be there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: socket | None = None
        self._sent: list[socket] | None = None
        """What the keeper holds, by the identity of the list."""
        self._due = 0.0
        """When a keeper with which something was wrong is asked again (monotonic)."""
        self._said = False

    def take_out(self) -> list[socket]:
        """Return what the keeper holds of a supervisor that has died; nothing, where there is none."""
        found = self._meet()
        self._sent = found
        return found

    def follow(self, sockets: list[socket]) -> None:
        """Have the keeper hold these; where they are the list of before, look whether it is there still."""
        if self._connection is not None and not self._there(self._connection):
            self._lose("it has ended")
        if self._connection is None and time.monotonic() >= self._due:
            close(self._meet())  # ours, or older than ours
        if self._connection is None or sockets is self._sent:
            return
        try:
            self._connection.settimeout(ASK_SECONDS)
            send(self._connection, sockets)
        except OSError as error:
            self._lose(error)
            self._due = time.monotonic() + AGAIN_SECONDS
        else:
            self._sent = sockets

    def _meet(self) -> list[socket]:
        connection = socket(AF_UNIX, SOCK_STREAM)
        connection.settimeout(ASK_SECONDS)
        try:
            connection.connect(self._path)
            found = receive(connection)
        except (OSError, ValueError) as error:
            connection.close()
            if not isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
                self._lose(error)
                self._due = time.monotonic() + AGAIN_SECONDS
            return []
        if self._said:
            say("info", "the keeper of HAProxy's sockets is back")
        self._connection, self._sent, self._said = connection, None, False
        return found

    def _there(self, connection: socket) -> bool:
        connection.setblocking(False)
        try:
            return connection.recv(1, MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _lose(self, problem: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if not self._said:
            say("warning", f"the keeper of HAProxy's sockets does not hold them: {problem}")
        self._said = True
