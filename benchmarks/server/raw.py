"""What ONNX Runtime does without a server, on the cores that a server would have, and the best way to use it.

The measuring itself is ``peers/raw_onnxruntime.py``, in a process of its own.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.server.environments import PROGRAMS
from benchmarks.server.load import Cores, on
from benchmarks.server.models import BenchModel
from testbed.shell import run as command

BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Way:
    """How the session is used: rows in a run, threads of a run, runs at a time, runs a second (0: one behind the other)."""

    rows: int = 1
    threads: int = 1
    runs: int = 1
    rate: float = 0.0


@dataclass(frozen=True)
class Raw:
    """What came of it: rows a second, and a run's median and 99th percentile in microseconds."""

    rate: float
    p50: float
    p99: float


def raw(model: BenchModel, cores: Cores, ways: Sequence[Way], seconds: float) -> list[Raw]:
    """Measure each way for some seconds, one after the other."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **dict(model.inputs))  # type: ignore[arg-type]  # numpy knows one keyword of its own
        told = [f"{way.rows},{way.threads},{way.runs},{way.rate}" for way in ways]
        program: list[str | Path] = [
            sys.executable,
            PROGRAMS / "raw_onnxruntime.py",
            model.path,
            inputs,
            str(seconds),
            *told,
        ]
        done = command(*on(cores.server, program), timeout=60 + 10 * seconds * len(ways))
    return [Raw(**one) for one in json.loads(done.stdout)]


def best(model: BenchModel, cores: Cores, seconds: float) -> Way:
    """Return the way with the most rows a second: of batch sizes, and of cores shared by one run or one for each run."""
    count = len(cores.server)
    batches = [rows for rows in BATCHES if rows <= model.most_rows]
    ways = [Way(rows, threads, count // threads) for rows in batches for threads in sorted({1, count})]
    found = zip(raw(model, cores, ways, seconds), ways, strict=True)
    return max(found, key=lambda one: one[0].rate)[1]
