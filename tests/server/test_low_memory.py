"""What 100 MB of weights cost a process, by the kernel's own count, with and without `--memory-mode low`."""

import subprocess
import sys

import pytest

from tests.server.onnx_models import save_matmul_stack

pytestmark = pytest.mark.process


ANONYMOUS = """
import sys
from pathlib import Path
import numpy as np
from inference_server.engine.model import Model
from inference_server.files.model_directory import find_model

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024

before = anonymous()
model = Model(find_model(Path(sys.argv[1])), 1, low_memory=sys.argv[2] == "low")
answer = model.run(["y"], {"x": np.ones((1, 512), np.float32)})
print(anonymous() - before, float(np.abs(answer[0]).sum()))
"""


def test_low_memory_keeps_a_hundred_megabytes_of_weights_out_of_the_heap(tmp_path):
    path = save_matmul_stack(tmp_path / "m.onnx", layers=100, size=512)
    weights = (tmp_path / "m.data").stat().st_size
    assert weights >= 100e6

    def measured(mode):
        output = subprocess.run(
            [sys.executable, "-c", ANONYMOUS, str(path), mode],
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        )
        anonymous, total = output.stdout.split()
        return int(anonymous), float(total)

    low, answer = measured("low")
    assert low <= 10e6
    standard, same = measured("standard")
    assert standard >= weights
    assert answer == pytest.approx(same, rel=1e-3)
