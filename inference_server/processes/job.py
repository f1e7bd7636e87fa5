"""What a further process of a server is given at its start: everything that the first one found out already.

It travels once, over the socket that connects the two, as Python's own pickle: both ends are this program, and nobody else
holds an end.
"""

import pickle
import socket
from dataclasses import dataclass

from inference_server.errors import ModelLoadFailed
from inference_server.files.model_directory import ModelFiles
from inference_server.serving.activation import Known
from inference_server.settings import Settings

_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Job:
    """What one process is to serve, and with what.

    Attributes:
        settings: The server's.
        files: The model.
        stamp: What its file looked like when the first process had loaded it.
        known: How it is computed, and what came of its golden samples.
        row: Of the board; also the process's number.
        rows: Rows of the board.
        board: Descriptor of the board's memory.
        listener: Descriptor of a socket that is bound, and listens once the process can serve.
        parent: Process id of the first one.
    """

    settings: Settings
    files: ModelFiles
    stamp: tuple[int, int, int]
    known: Known
    row: int
    rows: int
    board: int
    listener: int
    parent: int

    def encoded(self) -> bytes:
        """Return what is sent."""
        data = pickle.dumps(self)
        return len(data).to_bytes(_LENGTH_BYTES, "little") + data

    def check_unchanged(self) -> None:
        """See to it that what will be loaded is the model that was judged and measured.

        Raises:
            ModelLoadFailed: The file is another one now, or gone.
        """
        if stamp_of(self.files) != self.stamp:
            raise ModelLoadFailed(
                f"{self.files.entry}: changed since the server was started; all processes of a server compute the same "
                "model: start it anew"
            )


def stamp_of(files: ModelFiles) -> tuple[int, int, int]:
    """Return by what a model's file is known again: inode, size, time of change; zeros when it is gone."""
    try:
        found = files.entry.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def receive(control: socket.socket) -> Job:
    """Wait for the job on a socket that blocks.

    Raises:
        EOFError: The first process has ended.
    """
    length = int.from_bytes(_exactly(control, _LENGTH_BYTES), "little")
    job = pickle.loads(_exactly(control, length))  # noqa: S301 — from the process that started this one
    assert isinstance(job, Job)
    return job


def _exactly(control: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = control.recv(count - len(data))
        if not more:
            raise EOFError("the first process has ended")
        data += more
    return data
