"""How small patches are, how fast they are made and applied on one core, and what memory that takes.

Real fine-tunes of MiniLM-L6 (``delta_models``), a retrained model and a synthetic one of 512 MB, each through every codec
of ours that suits it, beside ``zstd --patch-from``, xdelta3, bsdiff4 and hdiffpatch on the same files. Every patch is
applied and what comes out is compared by SHA-256. Each run is a process on one core; speeds count its processor seconds,
interpreter start included, so that other work on the machine is not in them. bsdiff4 and hdiffpatch take minutes for
90 MB of floats and are given 4 MiB of such pairs, with ours on the same 4 MiB beside them; only ``zstd -3`` is given all
512 MB.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.delta_models import PAIRS, Pair, made
from benchmarks.delta_rivals import OURS, start
from benchmarks.figures import Report
from edgemodel.artifact.delta.process import environment

SLICE = 4 << 20
CORE = "1" if (os.cpu_count() or 1) > 1 else "0"
MILLION = 1e6
ROUNDS = 5
"""Of those runs whose speeds are reported; the best one counts: what is slower was another's work on the machine."""
ZSTD = {"zstd-patch-from-3": "-3", "zstd-patch-from-19": "-19"}
SLOW = ("bsdiff4", "hdiffpatch")
SLICED = "ulp-slice"
TIMED = ("strong_fp32", "synthetic_512mb_fp32")
"""Pairs whose speeds have goals: everything in them changed."""


@dataclass(frozen=True)
class Outcome:
    """One method on one pair: sizes in bytes, speeds in MB/s, peaks in MB."""

    of: int
    patch: int
    make_speed: float
    apply_speed: float
    make_peak: float
    apply_peak: float

    @property
    def percent(self) -> float:
        """Patch size in % of the new file, or slice."""
        return 100 * self.patch / self.of


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    if not made():
        raise RuntimeError("the models could not be made; what went wrong is above")
    report = Report("delta")
    peaks = []
    table: dict[str, dict[str, dict[str, float | str]]] = {}
    for pair in PAIRS:
        found = {method: _measure(pair, method) for method in _methods(pair)}
        table[pair.name] = {
            method: {
                "percent": round(outcome.percent, 3),
                "make_MB_s": round(outcome.make_speed, 1),
                "apply_MB_s": round(outcome.apply_speed, 1),
                "make_peak_MB": round(outcome.make_peak, 1),
                "apply_peak_MB": round(outcome.apply_peak, 1),
                "of": "whole" if outcome.of == pair.new.stat().st_size else f"{SLICE >> 20} MiB of it",
            }
            for method, outcome in found.items()
        }
        for method, row in table[pair.name].items():
            print(f"bench: delta {pair.name} {method}: {row}", flush=True)
        peaks += [outcome.apply_peak for method, outcome in found.items() if method in OURS]
        best = min((m for m in found if m in OURS), key=lambda m: found[m].patch)
        whole = [m for m in found if m not in OURS and found[m].of == pair.new.stat().st_size]
        rival = min(whole, key=lambda m: found[m].patch)
        if SLICED in found:
            report.add(f"{pair.name}_slice_size", found[SLICED].percent, "% of 4 MiB")
            for name in SLOW:
                report.add(f"{pair.name}_slice_{name}_size", found[name].percent, "% of 4 MiB")
        report.add(
            f"{pair.name}_size", found[best].percent, "% of the file", "<=" if pair.goal else "", pair.goal
        )
        report.add(f"{pair.name}_best_rival_size", found[rival].percent, "% of the file")
        report.notes[f"{pair.name}_best"] = {"ours": best, "rival": rival}
        ulp = found["ulp"]
        goals = pair.name in TIMED
        report.add(
            f"{pair.name}_apply", ulp.apply_speed, "MB/s", ">=" if goals else "", 150 if goals else None
        )
        report.add(f"{pair.name}_make", ulp.make_speed, "MB/s", ">=" if goals else "", 60 if goals else None)
    report.add("largest_apply_peak", max(peaks), "MB", "<=", 100)
    report.notes["table"] = table
    if not shutil.which("xdelta3"):
        report.notes["xdelta3"] = (
            "left out: no such program here (its Python package fails on Python 3.10 and later)"
        )
    return report.finish()


def _methods(pair: Pair) -> list[str]:
    ours = ["ulp", "patch-from", "planes"] if pair.large else list(OURS)
    if pair.new.stat().st_size > 200 * MILLION:
        return [*ours, "zstd-patch-from-3"]
    xdelta3 = ["xdelta3"] if shutil.which("xdelta3") else []
    if pair.name.startswith(("last_layer", "metadata_only")):
        return [*ours, "zstd-patch-from-3", *xdelta3]  # a slice of these says nothing
    sliced = [SLICED] if pair.large else []
    return [*ours, *(ZSTD if not pair.large else ["zstd-patch-from-3"]), *xdelta3, *sliced, *SLOW]


def _measure(pair: Pair, method: str) -> Outcome:
    length = SLICE if method == SLICED or (pair.large and method in SLOW) else 0
    with tempfile.TemporaryDirectory(prefix="edgemodel-bench-") as name:
        patch = Path(name) / "patch"
        make = _command(pair, method, "make", patch, length)
        rounds = ROUNDS if method == "ulp" else 1
        made = min(_measured(make)[0] for _ in range(rounds))
        want = _digest(pair.new, length)
        runs = [_measured(_command(pair, method, "apply", patch, length)) for _ in range(rounds)]
        assert all(digest == want for _, digest in runs), f"{method} on {pair.name} gave other bytes"
        applied = min(measured for measured, _ in runs)
        size = min(length or 1 << 62, pair.new.stat().st_size)
        return Outcome(
            size,
            patch.stat().st_size,
            size / MILLION / made[0],
            size / MILLION / applied[0],
            made[1],
            applied[1],
        )


def _command(pair: Pair, method: str, action: str, patch: Path, length: int) -> list[str]:
    if method in ZSTD:
        base = f"--patch-from={pair.old}"
        if action == "make":
            return ["zstd", "-q", "-f", ZSTD[method], "--long=31", base, str(pair.new), "-o", str(patch)]
        return ["zstd", "-q", "-d", "-c", "--long=31", base, str(patch)]
    if method == "xdelta3":
        window = str(max(1 << 20, pair.old.stat().st_size + 4096))
        words = ["xdelta3", "-q", "-f", "-c", "-B", window, "-s", str(pair.old)]
        if action == "make":
            return [*words[:3], "-e", "-9", *words[4:], str(pair.new), str(patch)]
        return [*words, "-d", str(patch)]
    words = [sys.executable, "-m", "benchmarks.delta_rivals", method, action]
    return [*words, str(pair.old), str(pair.new), str(patch), str(length)]


def _measured(words: list[str]) -> tuple[tuple[float, float], str]:
    """Run on one core; return processor seconds and peak MB, and the digest of what was written."""
    variables = environment() | {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        ["taskset", "-c", CORE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables
    )
    assert process.stdout is not None
    assert process.stderr is not None
    found = hashlib.sha256()
    while piece := process.stdout.read(1 << 20):
        found.update(piece)
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {said[-500:]}")
    if words[0] in ("zstd", "xdelta3"):
        return (usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MILLION), found.hexdigest()
    seconds, peak = said.split()[-2:]
    return (float(seconds), float(peak)), found.hexdigest()


def _digest(path: Path, length: int) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start(path, length))
        left = length or path.stat().st_size
        while left and (piece := file.read(min(1 << 20, left))):
            found.update(piece)
            left -= len(piece)
    return found.hexdigest()
