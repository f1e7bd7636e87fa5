"""Runs a model that is about to be published, by the inference server's own loader, in a child process.

So the answers are those that clients would get, and neither the runtime nor a model that crashes it comes into this
process. Leaves to others: what to run, and what the answers mean.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel.errors import Stalled

LIMIT_SECONDS = 600
"""For all samples of one model."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of golden samples; the server's own words (docs/reference/artifact-format.md, "Samples")."""

    outcome: str
    """``Pass`` or ``Fail``."""
    total: int
    passed: int
    failures: tuple[str, ...]


def lay_out(files: Mapping[str, Path], folder: Path) -> None:
    """Put files at their paths below a folder, as the server wants them."""
    for path, source in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(source)
        except OSError:
            # Another file system. A symbolic link would lead out of the folder, which the server refuses.
            target.write_bytes(source.read_bytes())


def run_samples(model: Path, samples: Sequence[Path], to: Path) -> None:
    """Write what a model answers to each sample as an ``.npz`` of the same name into a folder; blocks.

    Raises:
        Stalled: ``InvalidSpec``; the model could not be run on them. The message says why.
    """
    _run("run_samples", str(model), *map(str, samples), "--to", str(to))


def check_golden(model: Path, archive: Path) -> Checked:
    """Return what would come of golden samples when the model is served; blocks.

    Raises:
        Stalled: ``InvalidSpec``; the model could not be loaded.
    """
    said = json.loads(_run("check_golden", str(model), str(archive)))
    return Checked(
        said["outcome"], said["total"], said["passed"], tuple(one["message"] for one in said["failures"])
    )


def _run(program: str, *words: str) -> str:
    command = [sys.executable, "-m", f"inference_server.{program}", *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Stalled(
            "InvalidSpec",
            f"the model did not answer the samples in {LIMIT_SECONDS} s; give fewer or smaller ones",
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no word"]
        advice = ""
        if "ModuleNotFoundError" in said[0]:
            advice = "; install edgemodel[server] to see what a model answers"
        raise Stalled("InvalidSpec", f"the model could not be run on the samples: {said[0][:600]}{advice}")
    return done.stdout
