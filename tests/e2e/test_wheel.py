"""The wheel's ``server`` extra alone is enough to serve: built, installed into a fresh environment, asked.

Needs the package registry, and no cluster.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.paths import ROOT
from testbed.shell import run
from tests.server.onnx_models import mlp, save
from tests.server.process import ask

SOURCES = ("operator", "inference_server", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that holds the wheel, and what its extra asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / "source" / name)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source")
    (wheel,) = folder.glob("edgemodel-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    constraints = ("--constraint", ROOT / "constraints.txt")
    run(*pip, "--python", python, "install", *constraints, f"{wheel}[server]", timeout=240)
    return python


def test_the_server_extra_is_enough_to_serve(python: Path, tmp_path: Path) -> None:
    model = save(mlp(), tmp_path / "m.onnx")
    command = [python, "-m", "inference_server", "--model", model, "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert server.stderr is not None
        port, lines = 0, []
        for line in server.stderr:
            lines.append(line)
            event = json.loads(line)
            port = event.get("port", port)
            if event["event"] == "ready":
                break
        assert port, lines
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}
        body = json.dumps({"inputs": [tensor]}).encode()
        status, _, answer = asyncio.run(ask(port, "POST", "/v2/models/m/infer", body))
        assert status == 200, answer
        assert len(json.loads(answer)["outputs"][0]["data"]) == 10
        # The command measures it with what the extra brings, too.
        measured = run(
            *(python, "-m", "edgemodel", "bench", f"http://127.0.0.1:{port}", "--model", "m"),
            *("--requests", "20", "--concurrency", "2"),
            env={"PYTHONPATH": ""},
            cwd=tmp_path,
        )
        assert "concurrency 2" in measured.stdout
    finally:
        server.kill()
        server.communicate()
