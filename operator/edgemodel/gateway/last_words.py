"""Tells every worker of HAProxy that none follows it: what the supervisor does before it has HAProxy end.

A worker that ends hands later requests of its connections to the worker that followed it (``configuration``), which would be
nobody. Read in by the supervisor at the end only, as it brings Python's sockets along.
"""

import socket
import time

from edgemodel.gateway.state import ENDING

_SECONDS = 2.0
_START_SECONDS = 3.0
"""How long a master process that begins, or begins anew, may take to answer. Before that it misses signals."""
_MAX_BYTES = 1 << 20


def say_that_none_follows(master_socket: str, files: str) -> None:
    """Have all workers, those that end too, answer what still comes by themselves.

    Args:
        master_socket: of HAProxy's master process.
        files: folder from which they have their maps.

    Raises:
        OSError: the master process does not answer.
    """
    for line in _ask_when_it_answers(master_socket, "show proc").splitlines():
        number, kind = (*line.split()[:2], "", "")[:2]
        if number.isdecimal() and kind == "worker":
            _ask(master_socket, f"@!{number} set map {files}/weights.map {ENDING} 1")


def _ask_when_it_answers(path: str, command: str) -> str:
    ends = time.monotonic() + _START_SECONDS
    while True:
        try:
            return _ask(path, command)
        except (ConnectionError, FileNotFoundError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.02)


def _ask(path: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        connection.connect(path)
        connection.sendall(f"{command}\n".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while len(answer) < _MAX_BYTES and (more := connection.recv(65536)):
            answer += more
    return answer.decode("utf-8", "replace")
