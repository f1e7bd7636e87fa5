"""Debian's docker-registry on a port of its own on loopback, plain HTTP, with a log of what it was asked."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.waiting import until

# Apache's combined log format, as gorilla/handlers writes it.
_LINE = re.compile(r'"([A-Z]+) (\S+) HTTP/[0-9.]+" ([0-9]{3}) ([0-9]+)')


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    status: int
    bytes: int
    """Of the answer's body."""


@dataclass
class LocalRegistry:
    """A registry that runs.

    Attributes:
        host: ``address:port``.
        log: the file with its access log.
    """

    host: str
    log: Path
    _read: int = field(default=0, repr=False)

    def asked(self) -> list[Asked]:
        """Return what it was asked since the last call."""
        with self.log.open() as file:
            file.seek(self._read)
            lines = file.readlines()
            self._read = file.tell()
        found = (_LINE.search(line) for line in lines)
        return [Asked(one[1], one[2], int(one[3]), int(one[4])) for one in found if one]


@contextmanager
def local_registry(folder: Path) -> Iterator[LocalRegistry]:
    """Run one while the block lasts; what it holds lies in ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    host = f"{address[0]}:{address[1]}"
    config = folder / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    log = folder / "registry.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=file, stderr=subprocess.DEVNULL
        )

    def answers() -> bool:
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            return False
        return True

    try:
        until(answers, "the registry to answer", timeout=20, every=0.05)
        yield LocalRegistry(host, log)
    finally:
        process.terminate()
        process.wait(timeout=20)
