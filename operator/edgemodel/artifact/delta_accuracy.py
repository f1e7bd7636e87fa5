"""Compares what two forms of a model answer to samples: the gate before a rounded update is published.

Promises: no comparison, no pass. Leaves to others: where samples come from, how the models are run
(``inference_process``), and what is done about a difference.
"""

import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemodel.artifact.golden_samples import OUTPUTS
from edgemodel.artifact.inference_process import lay_out, run_samples
from edgemodel.errors import Refused, Stalled


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """How far one output moved, over all samples."""

    name: str
    cosine: float
    """The lowest cosine between the two answers to one sample; of whole numbers and texts, the share that is equal."""
    largest: float
    """The largest absolute difference; of whole numbers and texts, how many differ."""


def samples_in(place: Path) -> list[Path]:
    """Return the samples that a file or folder holds; of golden samples, their inputs.

    Raises:
        Stalled: ``InvalidSpec``; there are none.
    """
    found = sorted(place.rglob("*.npz")) if place.is_dir() else [place] if place.is_file() else []
    found = [path for path in found if not path.name.endswith(OUTPUTS)]
    if not found:
        raise Stalled("InvalidSpec", f"{place}: expected an .npz file, or a folder with some; found none")
    return found


def compare(
    trained: Mapping[str, Path], rounded: Mapping[str, Path], entry: str, samples: Sequence[Path]
) -> tuple[OutputDifference, ...]:
    """Run both forms on all samples and return the differences by output; blocks.

    Args:
        trained: files by path in the artifact.
        rounded: the same, rounded.
        entry: path of the model's ONNX file.
        samples: ``.npz`` files with one array for each input.

    Raises:
        Stalled: ``InvalidSpec``; the model could not be run on them. The message says why.
    """
    with tempfile.TemporaryDirectory(prefix="edgemodel-accuracy-") as name:
        folder = Path(name)
        inputs = folder / "samples"
        inputs.mkdir()
        numbered = [inputs / f"{number}.npz" for number in range(len(samples))]
        for place, sample in zip(numbered, samples, strict=True):
            place.symlink_to(sample.resolve())
        answers = []
        for form, files in (("trained", trained), ("rounded", rounded)):
            lay_out(files, folder / form)
            (folder / f"{form}-answers").mkdir()
            run_samples(folder / form / entry, numbered, folder / f"{form}-answers")
            answers.append(folder / f"{form}-answers")
        return _differences([(answers[0] / place.name, answers[1] / place.name) for place in numbered])


def check(differences: Sequence[OutputDifference], min_cosine: float) -> None:
    """Refuse when an output moved too far.

    Raises:
        Refused: ``AccuracyLost``; the message has the figures.
    """
    # Not "below": a cosine that is no number passes no comparison either.
    bad = [one for one in differences if not one.cosine >= min_cosine]
    if bad or not differences:
        listed = "; ".join(
            f"{one.name}: cosine {one.cosine:.7f}, largest difference {one.largest:.3g}" for one in bad
        )
        raise Refused(
            "AccuracyLost",
            f"expected a cosine of at least {min_cosine} on every output, found {listed or 'no outputs'}; round to more "
            "bits (--delta-quantize), or publish without it",
        )


def _differences(pairs: Sequence[tuple[Path, Path]]) -> tuple[OutputDifference, ...]:
    found: dict[str, OutputDifference] = {}
    for one, other in pairs:
        before, after = _arrays(one), _arrays(other)
        for name, array in before.items():
            cosine, largest = _difference(array, after[name])
            known = found.get(name, OutputDifference(name, cosine, largest))
            # np.minimum lets what is no number through, so that it is seen.
            found[name] = OutputDifference(
                name, float(np.minimum(known.cosine, cosine)), float(np.maximum(known.largest, largest))
            )
    return tuple(found.values())


def _arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise Stalled("InvalidSpec", f"the answers to {path.name} cannot be read: {error}") from None


def _difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> tuple[float, float]:
    if one.shape != other.shape:
        return 0.0, float("inf")
    if one.dtype.kind != "f":
        wrong = int(np.count_nonzero(one != other))
        return 1 - wrong / max(1, one.size), float(wrong)
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    if np.array_equal(a, b):
        return 1.0, 0.0
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return (float(a @ b) / lengths if lengths else 0.0), float(np.abs(a - b).max())
