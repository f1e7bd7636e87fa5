"""``--delta-quantize``: the step of publishing that rounds an update, looks at what the model then answers, and says so."""

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemodel.cli import output
from edgemodel.errors import Stalled

if TYPE_CHECKING:
    from edgemodel.artifact.delta_accuracy import OutputDifference
    from edgemodel.artifact.delta_publish import Version
    from edgemodel.artifact.delta_quantize import Rounded
    from edgemodel.artifact.golden_samples import Golden
    from edgemodel.artifact.old_versions import Published


@dataclass(frozen=True, slots=True)
class Result:
    """What rounding did."""

    bits: int
    files: Mapping[str, Path]
    """All files of the new version by path, the rounded ones in place of the trained ones."""
    rounded: "tuple[Rounded, ...]"
    samples: int
    differences: "tuple[OutputDifference, ...]"
    """By output; none when nothing was checked."""


def add(group: Any) -> None:
    """Add the options."""
    group.add_argument(
        "--delta-quantize",
        type=int,
        choices=(8, 6, 4),
        metavar="BITS",
        help="round the update of float weights from the first --delta-from to 8, 6 or 4 bits, so that its delta is several "
        "times smaller; what is published and signed is the rounded model",
    )
    group.add_argument(
        "--samples",
        type=Path,
        metavar="FILE",
        help=".npz with one array for each input, or a folder of such files: the rounded model must answer them as the "
        "trained one does (default: those of --golden, else those that the first --delta-from brings along)",
    )
    group.add_argument(
        "--min-cosine",
        type=float,
        default=0.9999,
        metavar="X",
        help="lowest cosine, on any sample and output, between the two answers (default: 0.9999)",
    )
    group.add_argument(
        "--accept-unchecked", action="store_true", help="publish a rounded model that nobody compared"
    )


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that make no sense together.

    Raises:
        Stalled: ``InvalidSpec``.
    """
    if arguments.delta_quantize and not arguments.delta_from:
        raise Stalled(
            "InvalidSpec", "--delta-quantize needs --delta-from: the version that the update starts from"
        )
    if arguments.samples and not arguments.delta_quantize:
        raise Stalled(
            "InvalidSpec", "--samples is for --delta-quantize; without it the model is published as it is"
        )
    if not 0 < arguments.min_cosine <= 1:
        raise Stalled(
            "InvalidSpec", f"--min-cosine {arguments.min_cosine}: expected a number above 0 and up to 1"
        )


async def apply(
    arguments: argparse.Namespace,
    new: "Version",
    old: "Published",
    golden: "Golden | None",
    folder: Path,
) -> Result:
    """Round the update and check what the rounded model answers: to ``--samples``, or else to golden samples.

    Raises:
        Refused: ``AccuracyLost``; the message has the figures.
        Stalled: ``InvalidSpec``; nothing can be rounded, or nothing says whether the result is any good.
    """
    from edgemodel.artifact import delta_accuracy
    from edgemodel.artifact.delta_quantize import round_update
    from edgemodel.artifact.model_directory import entry_file

    samples = _samples(arguments, old, golden)
    rounded = await asyncio.to_thread(
        round_update, old.version, new, arguments.delta_quantize, folder / "rounded"
    )
    if not rounded:
        raise Stalled(
            "InvalidSpec",
            f"--delta-quantize: no float weights of the new version have the name, type and size of weights in "
            f"{old.reference}; publish without it",
        )
    trained = new.beside()
    files = {**trained, **{one.path: one.file for one in rounded}}
    differences: tuple[OutputDifference, ...] = ()
    if samples:
        entry = entry_file(list(files), arguments.model_file)
        differences = await asyncio.to_thread(delta_accuracy.compare, trained, files, entry, samples)
        delta_accuracy.check(differences, arguments.min_cosine)
    return Result(arguments.delta_quantize, files, tuple(rounded), len(samples), differences)


def _samples(arguments: argparse.Namespace, old: "Published", golden: "Golden | None") -> list[Path]:
    from edgemodel.artifact import delta_accuracy

    if arguments.samples:
        return delta_accuracy.samples_in(arguments.samples)
    if golden is None and not arguments.accept_unchecked:
        raise Stalled(
            "InvalidSpec",
            f"--delta-quantize changes what the model answers, a little, and {old.reference} brings no samples to compare "
            "on: give --golden, --samples, or --accept-unchecked",
        )
    return golden.inputs if golden is not None else []


def document(result: Result, unrounded: int | None) -> dict[str, Any]:
    """Return what was done as JSON values; ``unrounded``: bytes of the deltas had nothing been rounded."""
    return {
        "bits": result.bits,
        "samples": result.samples,
        "outputs": [
            {"name": one.name, "minCosine": one.cosine, "maxDifference": one.largest}
            for one in result.differences
        ],
        "unroundedDeltaSize": unrounded,
        "files": [
            {
                "path": one.path,
                "tensors": one.tensors,
                "weights": one.weights,
                "maxUpdate": one.largest_update,
                "maxError": one.largest,
            }
            for one in result.rounded
        ],
    }


def show(result: Result, unrounded: int | None, rounded: int) -> None:
    """Print what was done for people; the two sizes are those of the deltas without and with rounding."""
    print()
    print(f"update rounded to {result.bits} bits:")
    output.table(
        ("FILE", "TENSORS", "WEIGHTS", "LARGEST UPDATE", "LARGEST ERROR"),
        [
            (one.path, one.tensors, one.weights, f"{one.largest_update:.3g}", f"{one.largest:.3g}")
            for one in result.rounded
        ],
    )
    print()
    if result.differences:
        output.table(
            ("OUTPUT", "MIN COSINE", "LARGEST DIFFERENCE"),
            [(one.name, f"{one.cosine:.7f}", f"{one.largest:.3g}") for one in result.differences],
        )
        print(f"on {result.samples} sample(s), rounded against trained")
    else:
        print("what it answers was not compared (--accept-unchecked)")
    if unrounded:
        print(f"delta: {output.size(rounded)}; without rounding {output.size(unrounded)}")
