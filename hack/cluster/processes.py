"""Starts, finds and stops the processes of a cluster, across runs of the command.

A process is known by its pid *and* its start time, so a pid that the kernel gave to someone else is never
taken for ours, let alone killed. There is no supervisor: a component that dies stays dead until the next `up`,
which is what a test of failures wants.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.layout import ClusterError, Layout

_STOP_SECONDS = 5.0
_CHILDREN: list[subprocess.Popen[bytes]] = []  # kept, so that a child that dies while we run is reaped


def start(
    layout: Layout,
    name: str,
    command: Sequence[str],
    *,
    namespaces: Mapping[str, Path] | None = None,
    environment: Mapping[str, str] | None = None,
) -> bool:
    """Start a component unless it runs with this very command line already; one with another is replaced.

    Args:
        layout: The cluster.
        name: What it is called in `pids/` and `logs/`.
        command: Program and arguments.
        namespaces: What to start it in: for each kind, as `nsenter` calls it, the namespace's file.
        environment: Added to a minimal environment.

    Returns:
        Whether a new process was started.
    """
    command = [str(part) for part in command]
    if namespaces:
        entered = [f"--{kind}={path}" for kind, path in namespaces.items()]
        command = ["nsenter", *entered, "--", *command]
    if pid_of(layout, name):
        if _record(layout, name).get("command") == command:
            return False
        stop(layout, [name])
    layout.logs.mkdir(parents=True, exist_ok=True)
    layout.pids.mkdir(parents=True, exist_ok=True)
    minimal = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(layout.directory),
    }
    with (layout.logs / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.directory,
            env=minimal | dict(environment or {}),
            start_new_session=True,
        )
    _CHILDREN.append(child)
    record = {"pid": child.pid, "started": _start_time(child.pid), "command": command}
    (layout.pids / f"{name}.json").write_text(json.dumps(record))
    return True


def pid_of(layout: Layout, name: str) -> int | None:
    """The pid of a component that runs, else None."""
    for child in _CHILDREN:
        child.poll()
    record = _record(layout, name)
    pid = record.get("pid")
    if isinstance(pid, int) and record.get("started") and _start_time(pid) == record["started"]:
        return pid
    return None


def names(layout: Layout) -> list[str]:
    """All components ever started, in the order of their names."""
    return sorted(path.stem for path in layout.pids.glob("*.json"))


def stop(layout: Layout, components: Sequence[str], *, seconds: float = _STOP_SECONDS) -> None:
    """Ask all of them to stop, wait for all of them together, then kill those that didn't."""
    running = {name: pid for name in components if (pid := pid_of(layout, name))}
    for pid in running.values():
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while any(pid_of(layout, name) for name in running):
        if time.monotonic() > deadline:
            for name in running:
                if pid := pid_of(layout, name):
                    _signal(pid, signal.SIGKILL)
            deadline = time.monotonic() + seconds
        time.sleep(0.02)
    for name in components:
        (layout.pids / f"{name}.json").unlink(missing_ok=True)


def kill(layout: Layout, components: Sequence[str], *, seconds: float = 10.0) -> None:
    """Kill all of them at once, and wait until the kernel has let go of them.

    Raises:
        ClusterError: One is still there after so many seconds.
    """
    running = {name: pid for name in components if (pid := pid_of(layout, name))}
    kill_pids(list(running.values()))
    deadline = time.monotonic() + seconds
    while alive := [name for name in running if pid_of(layout, name)]:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{', '.join(alive)} can't be killed; probably waiting for a disk. Try `down` again."
            )
        time.sleep(0.01)
    for name in components:
        (layout.pids / f"{name}.json").unlink(missing_ok=True)


def kill_pids(pids: Sequence[int]) -> None:
    """Kill these processes, whoever's children they are."""
    for pid in pids:
        _signal(pid, signal.SIGKILL)


def require_alive(layout: Layout, name: str) -> None:
    """Say why a component that should run doesn't.

    Raises:
        ClusterError: It is not running; the text has the end of its log.
    """
    if not pid_of(layout, name):
        raise ClusterError(f"{name} stopped by itself.\n{log_tail(layout, name)}")


def log_tail(layout: Layout, name: str, lines: int = 15) -> str:
    """The end of a component's log, for a person."""
    path = layout.logs / f"{name}.log"
    try:
        tail = path.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return f"It has no log ({path})."
    return "\n".join([f"The end of {path}:", *(f"  {line[:300]}" for line in tail)])


def _record(layout: Layout, name: str) -> dict[str, object]:
    try:
        record = json.loads((layout.pids / f"{name}.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _start_time(pid: int) -> str | None:
    """The kernel's start time of a living process (proc(5), stat field 22); None if it is gone or a zombie."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in "ZX" else after_name[19]


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
