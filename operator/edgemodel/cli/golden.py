"""``--golden``: the step of publishing that puts golden samples beside the model and looks whether it passes them."""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemodel.cli import output
from edgemodel.errors import Stalled

if TYPE_CHECKING:
    from edgemodel.artifact.golden_samples import Golden
    from edgemodel.artifact.publish import Prepared


@dataclass(frozen=True, slots=True)
class Result:
    """What was put beside the model."""

    samples: int
    computed: int
    """Of how many the published model itself said what is to be answered."""
    size: int
    """Bytes of the archive."""
    checked: bool
    carried_from: str
    """Reference of the version that the inputs came from; empty when ``--golden`` gave them."""


def add(group: Any) -> None:
    """Add the options."""
    group.add_argument(
        "--golden",
        type=Path,
        metavar="FOLDER",
        help="golden samples that every server runs before the version gets traffic: NAME.inputs.npz, NAME.outputs.npz "
        "(computed when missing) and tolerances.json, or the archive of these that an earlier pull left",
    )
    group.add_argument(
        "--golden-unchecked",
        action="store_true",
        help="sign golden samples without looking whether the model passes them; all outputs must be given",
    )


def collect(arguments: argparse.Namespace, folder: Path) -> "Golden | None":
    """Return the samples that were asked for; None when none were.

    Raises:
        Stalled: ``InvalidSpec``.
        Refused: ``MalformedArtifact``.
    """
    from edgemodel.artifact import golden_samples

    if arguments.golden is None:
        if arguments.golden_unchecked:
            raise Stalled("InvalidSpec", "--golden-unchecked needs --golden: the samples to sign unchecked")
        return None
    found = golden_samples.collect(arguments.golden, folder)
    if arguments.golden_unchecked and not found.whole:
        raise Stalled(
            "InvalidSpec",
            f"--golden-unchecked: expected <name>{golden_samples.OUTPUTS} beside each <name>{golden_samples.INPUTS} in "
            f"{arguments.golden}; without them the model must be run",
        )
    return found


def put_beside(
    arguments: argparse.Namespace,
    prepared: "Prepared",
    golden: "Golden",
    files: Mapping[str, Path],
    folder: Path,
    carried_from: str = "",
) -> "tuple[Prepared, Result]":
    """Compute the answers that are missing, pack, check, and return the artifact with the samples in it; blocks.

    Args:
        arguments: of the command.
        prepared: the artifact as it would be published without samples.
        golden: the samples.
        files: its files by path.
        folder: for what has to be written; it must exist until the artifact is pushed.
        carried_from: where the inputs come from when nobody gave any.

    Raises:
        Refused: ``GoldenSamplesFailed``; the model does not answer as the samples say.
        Stalled: ``InvalidSpec``; the model could not be run on them.
    """
    from edgemodel.artifact import golden_samples, inference_process
    from edgemodel.artifact.model_directory import entry_file
    from edgemodel.artifact.publish import with_samples

    folder.mkdir()
    archive = folder / "samples.tar"
    with tempfile.TemporaryDirectory(prefix="edgemodel-golden-") as name:
        work = Path(name)
        if arguments.golden_unchecked:
            golden_samples.pack(golden, archive)
        else:
            inference_process.lay_out(files, work / "model")
            model = work / "model" / entry_file(list(files), arguments.model_file)
            golden_samples.pack(golden_samples.answered(golden, model, work / "answers"), archive)
            # Also when all answers are the model's own: it may not answer twice alike.
            golden_samples.check(model, archive)
    result = Result(
        len(golden.samples),
        sum(sample.outputs is None for sample in golden.samples),
        archive.stat().st_size,
        not arguments.golden_unchecked,
        carried_from,
    )
    return with_samples(prepared, archive, folder), result


def document(result: Result) -> dict[str, Any]:
    """Return what was done as JSON values."""
    return {
        "samples": result.samples,
        "computedOutputs": result.computed,
        "size": result.size,
        "checked": result.checked,
        "carriedFrom": result.carried_from or None,
    }


def show(result: Result) -> None:
    """Print what was done for people."""
    words = [f"golden samples: {result.samples}, {output.size(result.size)}"]
    if result.carried_from:
        words.append(f"inputs carried on from {result.carried_from}")
    if result.computed:
        words.append(f"answers to {result.computed} computed by the model itself")
    words.append("the model passes them" if result.checked else "not checked (--golden-unchecked)")
    print()
    print("; ".join(words))
