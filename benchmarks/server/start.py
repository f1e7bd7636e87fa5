"""From exec to the first right answer, and what a server holds in memory: ours and the peers; and memory mode ``Low``.

All files are in the page cache. ``Low`` is measured by its anonymous memory (pages of files are shared and reclaimable)
beside the same mode with the small model: the difference is what 100 MB of weights cost.
"""

import os
import statistics
from pathlib import Path

from benchmarks.figures import Report
from benchmarks.footprint import family
from benchmarks.memory import resident
from benchmarks.server import models
from benchmarks.server.kinds import OURS, PEERS, Kind
from benchmarks.server.load import FREE, ONE, closed_loop
from benchmarks.server.rounds import Pace, in_rounds
from benchmarks.server.served import Served, ask, serve

STARTS = 7
LOW = {"EDGEMODEL_MEMORY_MODE": "Low"}


def start(report: Report, pace: Pace) -> None:
    """Measure starts and memory with the small model."""
    model = models.mlp()

    kinds = {"ours": OURS, **PEERS}

    def once(name: str) -> tuple[float, float]:
        kind = kinds[name]
        with serve(kind, model, FREE) as server:
            _warm(server, kind, model)
            return server.seconds, resident(family(server.pid))

    found = in_rounds(STARTS, ["ours"], once) | in_rounds(1, PEERS, once)
    for name, starts in found.items():
        ours = name == "ours"
        seconds, megabytes = (statistics.median(one[part] for one in starts) for part in (0, 1))
        report.add(f"start_{name}", seconds, "s", *(("<=", 0.7) if ours else ()))
        report.add(f"start_rss_{name}", megabytes, "MB", *(("<=", 75) if ours else ()))
    with serve(OURS, model, ONE) as server:
        report.add("start_ours_one_core", server.seconds, "s")
        closed_loop(server.pid, server.port, OURS.post(model), ONE, 64, max(2.0, pace.seconds))
        report.add("start_rss_ours_under_load", resident(family(server.pid)), "MB")


def memory(report: Report, _pace: Pace) -> None:
    """Measure what 100 MB of weights cost, by memory mode."""
    for mode, environment in (("low", LOW), ("default", {})):
        anonymous = []
        for model in (models.matmul100_external(), models.mlp()):
            with serve(OURS, model, FREE, environment) as server:
                _warm(server, OURS, model)
                anonymous.append(sum(map(_anonymous, family(server.pid))))
        goal = ("<=", 10.0) if mode == "low" else ()
        report.add(f"memory_{mode}_anonymous_of_100_mb", anonymous[0] - anonymous[1], "MB", *goal)
    report.notes["memory_page_size"] = os.sysconf("SC_PAGE_SIZE")


def _warm(server: Served, kind: Kind, model: models.BenchModel) -> None:
    for _ in range(200):
        ask(server.port, kind.post(model))


def _anonymous(pid: int) -> float:
    """Return a process's anonymous memory in MB (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError("Anonymous")
