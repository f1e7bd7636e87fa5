"""Every state of objects, with the moment at which it arrived here: for what happens faster than one can poll."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from testbed.kube import Kube
from testbed.paths import BIN


@dataclass
class Watch:
    """What a watch has brought so far: (POSIX time, object), oldest first."""

    seen: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def first(self, fits: Callable[[dict[str, Any]], Any], since: float = 0.0) -> float:
        """Return when an object first looked as said; LookupError while none did."""
        for at, item in list(self.seen):
            if at >= since and fits(item):
                return at
        raise LookupError("no such state was seen")


@contextmanager
def watch(kube: Kube, kind: str, namespace: str) -> Iterator[Watch]:
    """Collect every state of the objects of a kind in a namespace while the block lasts."""
    watched = Watch()
    process = subprocess.Popen(
        [str(BIN / "kubectl"), *kube.flags, "get", kind, "-n", namespace, "-w", "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )

    def read() -> None:
        lines: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                watched.seen.append((time.time(), json.loads("".join(lines))))
                lines.clear()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        process.terminate()
        process.wait(timeout=10)
        thread.join(timeout=10)
        assert process.stdout is not None
        process.stdout.close()
