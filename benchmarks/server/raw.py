"""The limit: ONNX Runtime in a process without a server, its session run again and again on rows that are there.

A program: ``python -m benchmarks.server.raw MODEL INPUTS.npz SECONDS ROWS THREADS RUNS``; INPUTS.npz holds one row.
``THREADS`` is what one run may use, ``RUNS`` how many go on at a time. Prints JSON: rows a second, and the median of a
run in microseconds.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.server.load import Cores, on
from benchmarks.server.models import BenchModel
from testbed.paths import ROOT


@dataclass(frozen=True)
class Way:
    """How the session is used: rows in a run, threads of a run, runs at a time."""

    rows: int
    threads: int
    runs: int


@dataclass(frozen=True)
class Raw:
    """What came of it: rows a second, and the median of a run in microseconds."""

    rate: float
    p50: float


def raw(model: BenchModel, cores: Cores, way: Way, seconds: float) -> Raw:
    """Run the program on the cores that a server would have."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **dict(model.inputs))  # type: ignore[arg-type]  # numpy knows one keyword of its own
        words = [model.path, inputs, seconds, way.rows, way.threads, way.runs]
        done = subprocess.run(
            on(cores.server, [sys.executable, "-m", "benchmarks.server.raw", *map(str, words)]),
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'hack'}"},
        )
    return Raw(**json.loads(done.stdout))


def best(model: BenchModel, cores: Cores, seconds: float) -> tuple[Way, Raw]:
    """Return the way with the most rows a second."""
    count = len(cores.server)
    shares = {(count, 1), (1, count)}
    ways = [Way(rows, threads, runs) for rows in (1, 2, 4, 8, 16, 32) for threads, runs in sorted(shares)]
    found = [(way, raw(model, cores, way, seconds)) for way in ways]
    return max(found, key=lambda one: one[1].rate)


def main(path: str, inputs: str, seconds: str, rows: str, threads: str, runs: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    with np.load(inputs) as one:
        feed = {name: np.repeat(one[name], int(rows), axis=0) for name in one.files}
    names = [output.name for output in session.get_outputs()]
    session.run(names, feed)
    took: list[list[float]] = []
    end = time.perf_counter() + float(seconds)

    def work() -> None:
        mine: list[float] = []
        took.append(mine)
        began = time.perf_counter()
        while began < end or not mine:
            session.run(names, feed)
            now = time.perf_counter()
            mine.append(now - began)
            began = now

    workers = [threading.Thread(target=work) for _ in range(int(runs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rate = sum(int(rows) * len(mine) / sum(mine) for mine in took)
    print(json.dumps({"rate": rate, "p50": 1e6 * float(np.median(np.concatenate(took)))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
