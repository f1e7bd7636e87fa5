"""HAProxy's listening sockets in the supervisor's hands: they outlive HAProxy, and connections wait in them meanwhile.

HAProxy gives its sockets to whoever asks its runtime API (``_getsocks``, with ``expose-fd listeners``), and one that starts
asks for them where ``-x`` says (its sources, 2.6: ``_getsocks`` in src/cli.c, ``sock_get_old_sockets`` in src/sock.c). Here
is the other side of both. The answer is a count, four bytes; then messages of at most 252 descriptors (SCM_RIGHTS), each
with six zeros, as ours are bound to no network namespace and to no interface. Each message is confirmed by four
bytes, for which HAProxy waits behind a full one only.

Promises: what HAProxy answers is taken whole or not at all, and bounded. Sockets of the file system are not held: HAProxy
makes them anew, at their path. Leaves to the supervisor: when to ask, and when to let go. The keeper, which holds them
while the supervisor is away, is spoken to in the same messages (``send``, ``receive``).
Imports next to nothing, as it lies in memory for ever.
"""

import os
import sys
from _socket import AF_UNIX, CMSG_SPACE, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

ASK_SECONDS = 1.0
"""How long HAProxy may take for each part of its answer; it gives as long to whom it asks."""
KEEPER_SOCKET = "keeper.sock"
"""Of the state folder: where the keeper is found."""
GIVE_SECONDS = 10.0
"""How long the child waits for an HAProxy that starts."""
HOLD_SECONDS = 5.0
"""For so long sockets are held for somebody who is away: by the supervisor for HAProxy, by the keeper for the supervisor."""
MOST = 16384
"""Sockets; there are a few, and one for each model."""
_AT_ONCE, _EACH, _INT = 252, 6, 4


class Held:
    """The sockets at which an HAProxy listens that runs, or ran until just now."""

    def __init__(self) -> None:
        self.giver = 0
        """Process id of the child that hands them on; who reaps it sets this to 0."""
        self.sockets: list[socket] = []
        """Another list whenever they may have changed."""

    def __len__(self) -> int:
        return len(self.sockets)

    def adopt(self, sockets: list[socket]) -> None:
        """Hold these, which the keeper had, instead of none."""
        self.sockets = sockets

    def take(self, path: str) -> None:
        """Hold what HAProxy listens at now, instead of what was held before.

        Args:
            path: of its runtime socket.

        Raises:
            OSError: it does not answer.
            ValueError: its answer makes no sense.
            In both cases what was held before still is.
        """
        connection = socket(AF_UNIX, SOCK_STREAM)
        try:
            connection.settimeout(ASK_SECONDS)
            connection.connect(path)
            connection.sendall(b"_getsocks\n")
            taken = receive(connection)
        finally:
            connection.close()
        if not taken:
            raise ValueError(f"0 sockets, expected 1 to {MOST}")
        self._stop_giving()  # who answers has been given what there was
        before, self.sockets = self.sockets, [one for one in taken if one.family != AF_UNIX]
        close([*before, *(one for one in taken if one.family == AF_UNIX)])

    def give(self, path: str) -> None:
        """Have a child of this process give them to the first who asks at a path, so that this one has time for others.

        Raises:
            OSError: no socket or no process is to be had.
        """
        self._stop_giving()
        listener = listen_at(path, 1)
        try:
            self.giver = os.fork()
            if not self.giver:
                try:
                    self._answer(listener)
                finally:
                    os._exit(0)
        finally:
            listener.close()

    def let_go(self) -> None:
        """Hold none, in the child either: where HAProxy does not listen, clients are refused."""
        self._stop_giving()
        close(self.sockets)
        self.sockets = []

    def _stop_giving(self) -> None:
        if self.giver:
            import signal  # it is there, in the supervisor: the keeper does without

            os.kill(self.giver, signal.SIGKILL)  # it is there until it is reaped

    def _answer(self, listener: socket) -> None:
        from socket import socket as whole  # a megabyte, which only the child has

        accepting = whole(fileno=listener.detach())
        accepting.settimeout(GIVE_SECONDS)
        connection, _ = accepting.accept()
        connection.settimeout(ASK_SECONDS)
        connection.recv(64)
        send(connection, self.sockets)
        if len(self.sockets) % _AT_ONCE:
            connection.recv(_INT)  # HAProxy confirms this one as well


def listen_at(path: str, backlog: int) -> socket:
    """Return a socket that listens at a path, whatever was there, for processes of the same user alone.

    Raises:
        OSError: it cannot be made.
    """
    listener = socket(AF_UNIX, SOCK_STREAM)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def send(connection: socket, sockets: list[socket]) -> None:
    """Pass sockets on to the other side, which has them beside this one.

    Raises:
        OSError: it does not take them.
    """
    connection.sendall(len(sockets).to_bytes(_INT, sys.byteorder))
    for begin in range(0, len(sockets), _AT_ONCE):
        part = sockets[begin : begin + _AT_ONCE]
        rights = b"".join(one.fileno().to_bytes(_INT, sys.byteorder) for one in part)
        connection.sendmsg([bytes(_EACH * len(part))], [(SOL_SOCKET, SCM_RIGHTS, rights)])
        if len(part) == _AT_ONCE:
            connection.recv(_INT)


def receive(connection: socket) -> list[socket]:
    """Return the sockets that the other side sends, which may be none.

    Raises:
        OSError: it does not send them, or has ended.
        ValueError: what it sends makes no sense.
    """
    head = connection.recv(_INT)
    if not head:
        raise ConnectionResetError("the other side has ended")
    count = int.from_bytes(head, sys.byteorder)
    if count > MOST or len(head) != _INT:
        raise ValueError(f"{head!r}, expected the number of sockets, up to {MOST}")
    taken: list[socket] = []
    try:
        while len(taken) < count:
            taken += _message(connection, min(_AT_ONCE, count - len(taken)))
    except (OSError, ValueError):
        close(taken)
        raise
    return taken


def _message(connection: socket, count: int) -> list[socket]:
    """Return the sockets of one message, of which there are to be so many."""
    data, rights, _, _ = connection.recvmsg(_EACH * count + 1, CMSG_SPACE(_INT * _AT_ONCE), MSG_CMSG_CLOEXEC)
    found = [
        socket(fileno=descriptor)
        for level, kind, numbers in rights
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)
        for descriptor in memoryview(numbers[: len(numbers) // _INT * _INT]).cast("i")
    ]
    if len(found) != count or data != bytes(_EACH * count):
        close(found)
        raise ValueError(f"{len(found)} sockets and {data[:64]!r}, expected {count}, with {_EACH} zeros each")
    if count == _AT_ONCE:
        connection.sendall(bytes(_INT))
    return found


def close(sockets: list[socket]) -> None:
    """Close all of them."""
    for one in sockets:
        one.close()
