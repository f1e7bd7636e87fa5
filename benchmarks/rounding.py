"""What ``--delta-quantize`` saves and costs in accuracy: float32 fine-tunes of MiniLM-L6, rounded to 8, 6 and 4 bits.

``edgemodel publish`` itself rounds, compares and attaches, against a registry on loopback. Accuracy is the lowest cosine
between what the trained and the rounded model answer to sentences that the training did not see; beside it, how far the
training moved the answers. Peer: the exact delta of the same pair, which the same command says it would have been.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import path_models
from benchmarks.figures import Report
from testbed import minilm_model
from testbed.local_registry import local_registry
from testbed.publisher import EDGEMODEL, PASSWORD, Publisher
from testbed.shell import run as command

PAIRS = ("strong_fp32", "mild_fp32")
BITS = (8, 6, 4)
LOST_AT_MOST = 100.0
"""Parts in a million: the cosine of 0.9999 that ``edgemodel publish`` asks for; here it publishes whatever comes."""


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("rounding")
    with tempfile.TemporaryDirectory(prefix="edgemodel-bench-") as name:
        folder = Path(name)
        samples = folder / "samples"
        samples.mkdir()
        for number, sentence in enumerate(minilm_model.SENTENCES):
            np.savez(samples / f"{number}.npz", allow_pickle=False, **minilm_model.inputs(sentence))
        with local_registry(folder) as registry:
            publisher = Publisher(folder, registry.host)
            for case in path_models.cases(PAIRS):
                old, new = case.versions(folder / case.name)
                reference = f"models/{case.name}"
                publisher.publish(old.entry, f"{reference}:1", version="1", sequence=1, extra=old.beside)
                size = new.beside[0].stat().st_size
                for bits in BITS:
                    said = _publish(f"{registry.host}/{reference}", new, bits, samples)
                    (file,) = said["deltas"]["from"][0]["files"]
                    (output,) = said["rounded"]["outputs"]
                    exact = said["rounded"]["unroundedDeltaSize"]
                    report.add(
                        f"{case.name}_{bits}_bits_size", 100 * file["deltaSize"] / size, "% of the file"
                    )
                    report.add(f"{case.name}_{bits}_bits_saving", exact / file["deltaSize"], "x")
                    lost = (1 - output["minCosine"]) * 1e6
                    report.add(f"{case.name}_{bits}_bits_cosine_below_1", lost, "ppm", "<=", LOST_AT_MOST)
                    report.notes[f"{case.name}_{bits}"] = said["rounded"]
                report.add(f"{case.name}_exact_size", 100 * exact / size, "% of the file")
                before, after = case.answers(old), case.answers(new)
                moved = 1 - min(float(a @ b) for a, b in zip(before, after, strict=True))
                report.add(f"{case.name}_update_cosine_below_1", moved * 1e6, "ppm")
    return report.finish()


def _publish(repository: str, new: path_models.Version, bits: int, samples: Path) -> dict[str, Any]:
    """Publish the new version rounded; return what the command says."""
    done = command(
        EDGEMODEL,
        "publish",
        new.entry,
        *new.beside,
        "--to",
        f"{repository}:rounded-{bits}",
        "--sequence",
        "2",
        "--delta-from",
        f"{repository}:1",
        "--delta-quantize",
        str(bits),
        "--samples",
        samples,
        "--min-cosine",
        "0.5",
        "--plain-http",
        "--output",
        "json",
        env=PASSWORD,
        timeout=300,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
