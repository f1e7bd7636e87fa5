"""What the pages say of serving without a cluster is executed as it stands, but for the port."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.onnx_models import mlp, save
from tests.unit.docs.pages import ROOT, blocks

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

EXAMPLE = ROOT / "examples" / "06-stand-alone"


def executed(commands, folder):
    """Run shell commands with the `python` and `edgemodel` of this environment; return what they printed."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    commands, count = re.subn(r"\b8080\b", str(port), commands)
    assert count
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-m", "-c", commands],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}",
            "EDGEMODEL_HOST": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_works_as_it_stands(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "example")
    told = executed("\n".join(blocks(EXAMPLE / "README.md", "sh")), tmp_path / "example")
    assert '{"ready":true}' in told
    assert '"name":"magika"' in told
    assert re.search(r"best score 0\.9", told)
    assert [line.split()[0] for line in told.splitlines() if line.endswith("  0")] == ["concurrency"] * 2 + [
        "rate"
    ]
    assert re.search(r'inference_requests_total\{.*code="200".*\} [1-9]', told)


def test_the_readme_works_as_it_stands(tmp_path):
    save(mlp(), tmp_path / "detector.onnx")
    page = (ROOT / "README.md").read_text()
    section = page.partition("## Serve a model on any machine\n")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    told = executed(commands, tmp_path)
    assert '"name":"detector"' in told
    assert "concurrency 4" in told
