"""A further process's end of the socket that connects it with the first one.

Promises that the process ends when the first one does, whatever that one died of and whatever this one is doing: at the end
of the socket, and, where the event loop does not turn, by the kernel (prctl(2), `PR_SET_PDEATHSIG`).
"""

import asyncio
import ctypes
import os
import signal
import socket
from collections.abc import Callable

READY = b"ready\n"
STOPPED = b"stopped %d\n"
STOP = b"s"

_PR_SET_PDEATHSIG = 1
_ORPHANED = 1  # exit code


def die_with(parent: int) -> None:
    """Have the kernel end this process with its parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(_ORPHANED)  # it was too late to ask


class Link:
    """This process's end.

    Args:
        control: The socket, after the job was received.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def follow(self, stop: Callable[[], None]) -> None:
        """Do what the first process says, on the running event loop: `stop` each time it says so."""
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._read, stop)

    def ready(self) -> None:
        """Say that this process serves now."""
        self._control.send(READY)

    def stopped(self, cut_off: int) -> None:
        """Say that it has drained, and how many requests had to be cut off."""
        self._control.send(STOPPED % cut_off)

    def _read(self, stop: Callable[[], None]) -> None:
        try:
            told = self._control.recv(64)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        if not told:
            os._exit(_ORPHANED)
        for _ in range(told.count(STOP)):
            stop()
