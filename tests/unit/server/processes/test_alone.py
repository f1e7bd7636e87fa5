"""A server of one process has nothing of several."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
PROGRAM = """
import sys
from pathlib import Path
from inference_server.app import App
from inference_server.settings import Settings
App(Settings(model=Path(sys.argv[1])))
print(*sorted(name for name in sys.modules if name.startswith("inference_server.")))
"""


def test_no_module_of_several_processes_is_imported(tmp_path):
    model = tmp_path / "m.onnx"
    model.touch()
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "inference_server.app" in told
    several = ("processes", "member", "worker", "telemetry.board", "telemetry.process_family")
    assert [name for name in told if name.startswith(tuple(f"inference_server.{it}" for it in several))] == []
