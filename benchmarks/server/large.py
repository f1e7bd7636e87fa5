"""A tensor of 25 MB, 1 x 3 x 1080 x 1920 float32, binary: ours beside a server that only receives as many bytes and answers.

The model looks at one corner of the image, so what is measured is the tensor's way to it. The peer, ``peers/receive.py``,
receives into one buffer that it keeps, which is what loopback and one copy out of the kernel allow. One client for both.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.figures import Report
from benchmarks.server import environments, models, wire
from benchmarks.server.kinds import NAME, OURS
from benchmarks.server.load import ONE, Cores, Measured, closed_loop, on
from benchmarks.server.rounds import Pace, in_rounds, median_ratio
from benchmarks.server.served import ask, free_port, serve
from benchmarks.server.small import check_binary
from testbed.waiting import until

CONNECTIONS = (1, 4)


def large(report: Report, pace: Pace) -> None:
    """Measure throughput, and the memory that one request takes."""
    model = models.corner()
    post = wire.as_binary(NAME, model.inputs)
    megabytes = len(post.body) / 1e6
    seconds = max(2.0, pace.seconds)
    with serve(OURS, models.mlp(), ONE) as server:
        small = _peak(server.pid)
    with serve_binary(model) as (pid, port), _receiver(ONE, post) as (peer, peer_port):
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew (proc(5))
        for _ in range(5):
            ask(port, post)
        report.add("large_memory_of_tensor", (_peak(pid) - small) / megabytes, "x", "<=", 2.1)
        servers = {"ours": (pid, port), "plain": (peer, peer_port)}

        def ask_again(connections: int, name: str) -> Measured:
            return closed_loop(*servers[name], post, ONE, connections, seconds)

        for connections in CONNECTIONS:
            found = in_rounds(pace.rounds, servers, partial(ask_again, connections))
            named = f"large_{connections}_connections"
            rates = {name: [one.rate for one in rounds] for name, rounds in found.items()}
            report.add(f"{named}_of_plain", median_ratio(rates["ours"], rates["plain"]), "x", ">=", 0.6)
            for name, rounds in found.items():
                report.add(f"{named}_{name}", statistics.median(rates[name]) * megabytes, "MB/s")
                cpu = statistics.median(one.cpu for one in rounds) / megabytes
                report.add(f"{named}_{name}_processor_time", cpu, "µs/MB")


@contextmanager
def serve_binary(model: models.BenchModel) -> Iterator[tuple[int, int]]:
    """Run ours with a model too large for JSON; its first answers are binary."""
    kind = OURS.by(lambda model: wire.as_binary(NAME, model.inputs), wire.only_binary)
    with serve(kind, model, ONE) as server:
        check_binary(server, model)
        yield server.pid, server.port


@contextmanager
def _receiver(cores: Cores, post: wire.Post) -> Iterator[tuple[int, int]]:
    port = free_port()
    program: list[str | Path] = [sys.executable, environments.PROGRAMS / "receive.py", str(port)]
    process = subprocess.Popen(on(cores.server, program))
    try:
        until(lambda: ask(port, post), "the plain server to answer", timeout=20)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


def _peak(pid: int) -> float:
    """Return the most memory that a process has held, in MB (proc(5), status)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError("VmHWM")
