"""What one serving pod costs: memory of the inference server with a real model, and the size of the three images.

Peer: a process that only opens the same model with ONNX Runtime, which is the least any server in Python can weigh.
What the model itself costs is what opening it adds to a process that has imported ONNX Runtime.
"""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx

from benchmarks.figures import Report
from benchmarks.memory import resident
from testbed import magika_model
from testbed.paths import ROOT
from testbed.shell import run as command
from testbed.waiting import until

PORT = 18080
PEER = "import onnxruntime, sys; {session}; print('ready', flush=True); sys.stdin.read()"
OPEN = "session = onnxruntime.InferenceSession(sys.argv[1])"


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("footprint")
    model = magika_model.release("v2")
    command_line = [sys.executable, "-m", "inference_server", "--model", str(model), "--name", "magika"]
    command_line += ["--host", "127.0.0.1", "--port", str(PORT)]
    server = subprocess.Popen(command_line, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        url = f"http://127.0.0.1:{PORT}/v2"
        until(lambda: _ready(url), "the server to be ready", timeout=30, every=0.02)
        body = json.dumps(magika_model.request(magika_model.SAMPLES["python"]))
        for _ in range(200):
            httpx.post(f"{url}/models/magika/infer", content=body).raise_for_status()
        ours = resident(family(server.pid))
    finally:
        server.terminate()
        server.wait(timeout=60)
    bare, raw = _onnxruntime("pass", model), _onnxruntime(OPEN, model)
    report.add("server_rss_without_model", ours - (raw - bare), "MB", "<=", 80)
    report.add("server_rss", ours, "MB")
    report.add("onnxruntime_with_model_rss", raw, "MB")
    report.add("onnxruntime_import_rss", bare, "MB")
    report.add("server_over_onnxruntime_with_model", ours / raw, "x")
    for line in command(ROOT / "hack" / "images" / "build", timeout=1500).stdout.splitlines():
        name, archive = line.split()
        part = name.rsplit("edgemodel-", 1)[1].split(":")[0]
        report.add(f"image_{part}", Path(archive).stat().st_size / 1e6, "MB uncompressed")
        report.notes[f"layers_{part}"] = _layers(Path(archive))
    return report.finish()


def _onnxruntime(session: str, model: Path) -> float:
    """Return the memory of a process with ONNX Runtime and perhaps a session, in MB."""
    code = PEER.format(session=session)
    peer = subprocess.Popen(
        [sys.executable, "-c", code, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert peer.stdout is not None
    peer.stdout.readline()
    held = resident([peer.pid])
    peer.kill()
    peer.communicate()
    return held


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    # Children are listed with the thread that started them.
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for listed in lists for child in listed.read_text().split()]
    return [pid, *(other for child in children for other in family(int(child)))]


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def _layers(archive: Path) -> list[float]:
    """Return the size of each layer in MB, lowest first."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        (image,) = json.load(manifest)
        return [round(tar.getmember(layer).size / 1e6, 1) for layer in image["Layers"]]
