"""How fast a verified pull is, and what memory it takes: 512 MB from a registry on this machine.

Peer: ``curl | sha256sum`` of the same blob, which downloads and hashes and does nothing else (no signature, no disk, no
resume); beside it ``oras-py``, which checks no digest. Each is a process of its own, measured from its start to its end;
rounds alternate and the medians are compared, so that a machine that is busy for a while is unfair to all alike.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Report
from testbed.local_registry import local_registry
from testbed.publisher import EDGEMODEL, PASSWORD
from testbed.shell import run as command

SIZE = 512 * 10**6
ROUNDS = 5
REPOSITORY = "models/large"
ORAS = "import oras.client, sys; oras.client.OrasClient(insecure=True).pull(target=sys.argv[1], outdir=sys.argv[2])"


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("pull")
    with (
        tempfile.TemporaryDirectory(prefix="edgemodel-bench-") as name,
        local_registry(Path(name)) as registry,
    ):
        folder, host = Path(name), registry.host
        reference = _publish(folder, host)
        blob = _largest_layer(reference)
        url = f"http://{host}/v2/{REPOSITORY}/blobs/{blob}"
        out = folder / "out"
        rivals: dict[str, list[str]] = {
            "ours": [
                str(EDGEMODEL),
                "pull",
                reference,
                "--to",
                str(out),
                "--key",
                str(folder / "bench.pub"),
                "--plain-http",
            ],
            "curl": ["sh", "-c", f"curl -sf {url} | sha256sum"],
            "oras_py": [sys.executable, "-c", ORAS, reference, str(out)],
        }
        speeds: dict[str, list[float]] = {rival: [] for rival in rivals}
        peaks: dict[str, list[float]] = {rival: [] for rival in rivals}
        for _ in range(ROUNDS):
            for rival, words in rivals.items():
                shutil.rmtree(out, ignore_errors=True)
                seconds, peak = _measured(words)
                speeds[rival].append(SIZE / 1e6 / seconds)
                peaks[rival].append(peak)
        startup = statistics.median(_measured([str(EDGEMODEL), "pull", "--help"])[0] for _ in range(3))
    median = {rival: statistics.median(found) for rival, found in speeds.items()}
    report.add("pull_over_curl_sha256sum", median["ours"] / median["curl"], "x", ">=", 0.7)
    report.add("pull_peak_rss", max(peaks["ours"]), "MB", "<=", 80)
    report.add("throughput", median["ours"], "MB/s")
    report.add("curl_sha256sum_throughput", median["curl"], "MB/s")
    report.add("oras_py_throughput", median["oras_py"], "MB/s")
    report.add("oras_py_peak_rss", max(peaks["oras_py"]), "MB")
    report.add("startup", startup, "s")
    report.notes["rounds"] = {rival: [round(speed, 1) for speed in found] for rival, found in speeds.items()}
    return report.finish()


def _measured(words: list[str]) -> tuple[float, float]:
    """Run a process to its end; return its seconds and its peak memory in MB."""
    begun = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr:
        problem = process.stderr.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{words[0]} exited with {process.returncode}: {problem}")
    return seconds, usage.ru_maxrss * 1024 / 1e6


def _publish(folder: Path, host: str) -> str:
    """Publish a file of random bytes as a signed model and return its reference."""
    model = folder / "model.onnx"
    with model.open("wb") as file:
        for _ in range(SIZE // 10**6):
            file.write(os.urandom(10**6))
    reference = f"{host}/{REPOSITORY}:1"
    command(EDGEMODEL, "keygen", "--output-key-prefix", folder / "bench", env=PASSWORD)
    facts = ("--version", "1", "--sequence", "1", "--key", str(folder / "bench.key"), "--plain-http")
    # Random bytes are no model: there are no weights to move.
    command(EDGEMODEL, "publish", model, "--to", reference, "--keep-weights-inside", *facts, env=PASSWORD)
    model.unlink()
    return reference


def _largest_layer(reference: str) -> str:
    done = command(EDGEMODEL, "inspect", reference, "--plain-http", "--output", "json")
    return str(max(json.loads(done.stdout)["files"], key=lambda file: file["size"])["digest"])
