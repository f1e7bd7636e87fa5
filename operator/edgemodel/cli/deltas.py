"""What commands that make deltas share: their options, fetching old versions, and how what came of it is printed."""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemodel.cli import options, output, progress
from edgemodel.errors import Stalled

if TYPE_CHECKING:
    from edgemodel.artifact.attach import Attached
    from edgemodel.artifact.delta_publish import Maker, Outcome, Version
    from edgemodel.artifact.old_versions import Published
    from edgemodel.artifact.reference import Reference
    from edgemodel.artifact.registry import Registry


@dataclass(frozen=True, slots=True)
class Made:
    """What came of the deltas from one old version."""

    old: "Published"
    outcomes: "tuple[Outcome, ...]"


def add_from_dir(group: Any) -> None:
    """Add ``--from-dir``."""
    group.add_argument(
        "--from-dir",
        action="append",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="where files of published versions lie already, such as an earlier pull's folder; they are checked by digest "
        "and not downloaded; may be repeated",
    )


def need_extras() -> None:
    """Say what to install when the codecs' packages are missing.

    Raises:
        Stalled: ``InvalidSpec``.
    """
    try:
        import edgemodel.artifact.delta.codec  # noqa: F401 - only whether it can be
    except ImportError as error:
        raise Stalled("InvalidSpec", f"deltas need {error.name}: install edgemodel[node]") from None


def references(texts: Sequence[str], target: "Reference | None" = None) -> "list[Reference]":
    """Read the references of old versions, each once."""
    from edgemodel.artifact.reference import Reference

    found = list(dict.fromkeys(Reference.parse(text) for text in texts))
    if target is not None and target in found:
        raise Stalled(
            "InvalidSpec",
            f"{target} is the new version and cannot be what its deltas start from; name an older one",
        )
    return found


async def bring(
    arguments: argparse.Namespace, wanted: "Sequence[Reference]", folder: Path
) -> "list[Published]":
    """Return published versions with their files on disk."""
    from edgemodel.artifact import old_versions

    found = []
    for number, reference in enumerate(wanted):
        own = folder / f"version-{number}"
        own.mkdir(parents=True)
        async with options.registry(arguments, reference) as registry:
            with progress.bar(f"fetching {reference.locator[:24]}") as advance:
                found.append(
                    await old_versions.bring(
                        registry, reference, own, folders=arguments.from_dir, progress=advance
                    )
                )
    return found


async def make(maker: "Maker", new: "Version", old: "Sequence[Published]") -> list[Made]:
    """Make deltas from each old version."""
    groups = await asyncio.to_thread(maker.make, new, [one.version for one in old])
    return [Made(one, tuple(outcomes)) for one, outcomes in zip(old, groups, strict=True)]


async def attach(
    registry: "Registry", reference: "Reference", manifest: bytes, made: Sequence[Made]
) -> "list[Attached]":
    """Push the deltas and attach them to the new version."""
    from edgemodel.artifact.delta_publish import attach_deltas

    attached = [await attach_deltas(registry, reference, manifest, one.outcomes) for one in made]
    return list(dict.fromkeys(one for one in attached if one is not None))


def document(made: Sequence[Made], attached: "Sequence[Attached]" = ()) -> dict[str, Any]:
    """Return what was made as JSON values."""
    return {
        "manifests": [str(one.digest) for one in attached],
        "from": [
            {
                "reference": str(one.old.reference),
                "savedBytes": sum(outcome.saved for outcome in one.outcomes),
                "files": [outcome_document(outcome) for outcome in one.outcomes],
            }
            for one in made
        ],
    }


def outcome_document(outcome: "Outcome") -> dict[str, Any]:
    """Return what came of one file as JSON values."""
    layer = outcome.layer
    return {
        "path": outcome.new.path,
        "to": outcome.new.descriptor.digest,
        "from": outcome.old.descriptor.digest if outcome.old else None,
        "fromPath": outcome.old.path if outcome.old else None,
        "size": outcome.new.descriptor.size,
        "codec": layer.codec if layer else None,
        "deltaSize": layer.descriptor.size if layer else None,
        "deltaDigest": layer.descriptor.digest if layer else None,
        "savedBytes": outcome.saved,
        "why": outcome.why,
        "tried": [
            {"codec": attempt.codec, "size": attempt.size, "note": attempt.note}
            for attempt in outcome.attempts
        ],
    }


def show(made: Sequence[Made]) -> None:
    """Print what was made for people."""
    for one in made:
        print()
        if not one.outcomes:
            print(f"deltas from {one.old.version.name}: no file changed")
            continue
        print(f"deltas from {one.old.version.name}:")
        output.table(
            ("FILE", "SIZE", "DELTA", "CODEC", "WHY"),
            [
                (
                    outcome.new.path or "(archive)",
                    output.size(outcome.new.descriptor.size),
                    output.size(outcome.layer.descriptor.size) if outcome.layer else "-",
                    outcome.layer.codec if outcome.layer else "-",
                    outcome.why,
                )
                for outcome in one.outcomes
            ],
        )
        saved = sum(outcome.saved for outcome in one.outcomes)
        changed = {outcome.new.descriptor.digest: outcome.new.descriptor.size for outcome in one.outcomes}
        whole = sum(changed.values())
        if saved and whole:
            output.fields([("saved", f"{output.size(saved)} of {output.size(whole)} ({saved / whole:.1%})")])
