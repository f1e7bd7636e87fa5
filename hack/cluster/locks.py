"""Locks between runs of the command: one for what all clusters share, one for each cluster."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.layout import clusters_dir


@contextmanager
def machine() -> Iterator[None]:
    """Hold what all clusters share: which indices are taken, the machine's settings. For moments only."""
    clusters_dir().mkdir(parents=True, exist_ok=True)
    with (clusters_dir() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def cluster(name: str) -> Iterator[None]:
    """Hold one cluster: an `up` and a `down` at once would undo each other's work."""
    clusters_dir().mkdir(parents=True, exist_ok=True)
    path = clusters_dir() / f".{name}.lock"
    while True:
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever held it before may have removed the file: then the next one locks another file.
            if not path.exists() or path.stat().st_ino != os.fstat(lock.fileno()).st_ino:
                continue
            try:
                yield
            finally:
                if not (clusters_dir() / name).exists():
                    path.unlink()
            return
