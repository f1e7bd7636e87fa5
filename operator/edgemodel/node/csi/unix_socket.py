"""A gRPC server on a unix socket that only root may open, and whose file appears when it already listens.

The file is made under another name and renamed: whoever watches the folder never meets a socket that does not answer, and
one that an earlier process left behind is replaced in the same step.
"""

import os
import socket
from pathlib import Path
from typing import Self

from grpclib.server import Server

from edgemodel.errors import Stalled
from edgemodel.node.csi.calls import Service

_LONGEST = 107
"""Bytes of a path in sockaddr_un (unix(7)), the end's NUL left out."""


class SocketServer:
    """Services on one socket."""

    def __init__(self, server: Server, path: Path, inode: int) -> None:
        self._server = server
        self._path = path
        self._inode = inode

    @classmethod
    async def start(cls, path: Path, *services: Service) -> Self:
        """Listen at ``path``; its folder is made when it is not there.

        Raises:
            Stalled: the path is too long for a socket, or its folder cannot be written to.
        """
        if len(os.fsencode(path)) > _LONGEST:
            raise Stalled(
                "InvalidSpec",
                f"{path}: expected at most {_LONGEST} bytes for a socket's path, found {len(os.fsencode(path))}; "
                "give the kubelet a shorter directory",
            )
        new = path.with_name(f".{path.name[:8]}")  # the kubelet overlooks names with a dot
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            listening.bind(str(new))
            new.chmod(0o600)
            inode = new.stat().st_ino
            server = Server(list(services))
            await server.start(sock=listening)
            new.replace(path)
        except OSError as error:
            listening.close()
            raise Stalled(
                "InvalidSpec",
                f"{path}: expected to make a socket there, found {error.strerror}; is the kubelet's directory mounted "
                "into the agent, writable?",
            ) from error
        return cls(server, path, inode)

    @property
    def in_place(self) -> bool:
        """Whether the path still leads to this server."""
        try:
            return self._path.lstat().st_ino == self._inode
        except OSError:
            return False

    async def close(self) -> None:
        """Take the file away, if it is still ours, then end all calls."""
        if self.in_place:
            self._path.unlink(missing_ok=True)
        self._server.close()
        await self._server.wait_closed()
