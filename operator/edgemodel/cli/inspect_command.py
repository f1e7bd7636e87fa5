"""``edgemodel inspect``: what an artifact says of itself and what is attached to it; nobody is asked who says so.

With ``--delta``: how two versions differ, and what that costs (``delta_tables``).
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemodel.cli import command, deltas, options, output
from edgemodel.cli.command import Commands
from edgemodel.errors import Refused

if TYPE_CHECKING:
    from edgemodel.artifact.reference import Reference
    from edgemodel.artifact.registry import Registry
    from edgemodel.artifact.signature import Evidence
    from edgemodel.artifact.verify import Examined

_SHOWN = 8


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "inspect",
        run,
        summary="show an artifact's files, release facts, golden samples and signatures, unverified",
        about="""
Shows what is there, whoever put it there. Whether to believe it is for `edgemodel verify`.
With --delta OLD NEW it compares two versions instead: tensor by tensor what changed, what each codec makes of it, and
which delta is published and why. On a terminal as tables, otherwise as JSON.""",
        examples="""
edgemodel inspect registry.example.com/models/detector:1.4.0
edgemodel inspect registry.example.com/models/detector:1.4.0 --output json
edgemodel inspect --delta registry.example.com/models/detector:1.4.0 registry.example.com/models/detector:1.5.0
edgemodel inspect --delta ./detector-1.4.0 retrained.onnx""",
    )
    parser.add_argument(
        "reference", nargs="?", metavar="REFERENCE", help="registry/repository:tag or …@sha256:…"
    )
    parser.add_argument(
        "--delta",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="compare two versions: references, or files or folders on disk",
    )
    deltas.add_from_dir(parser)
    parser.set_defaults(fail=parser.error)
    options.add_registry(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.artifact.manifest import Manifest, model_files, release
    from edgemodel.artifact.reference import Reference
    from edgemodel.artifact.verify import examine

    if (arguments.reference is None) == (arguments.delta is None):
        arguments.fail("expected either a REFERENCE or --delta OLD NEW")
    if arguments.delta is not None:
        from edgemodel.cli import delta_tables

        return delta_tables.run(arguments)
    reference = Reference.parse(arguments.reference)

    async def look() -> "tuple[Examined, dict[str, Any] | None]":
        async with options.registry(arguments, reference) as registry:
            examined = await examine(registry, reference)
            return examined, await _golden(registry, examined.reference, examined.manifest_bytes)

    examined, golden = asyncio.run(look())
    manifest = Manifest.parse(examined.manifest_bytes)
    files, facts = model_files(manifest), release(manifest)
    signatures = [_signature(item) for item in examined.evidence]
    kind = manifest.artifact_type or manifest.config.media_type
    if arguments.output == "json":
        output.document(
            {
                "reference": str(examined.reference),
                "digest": examined.digest,
                "artifactType": kind,
                "verified": False,
                "release": output.release(facts),
                "files": [
                    {
                        "path": file.path,
                        "packing": file.packing,
                        "mediaType": file.descriptor.media_type,
                        "digest": file.descriptor.digest,
                        "size": file.descriptor.size,
                    }
                    for file in files
                ],
                "golden": golden,
                "signatures": signatures,
                "annotations": dict(manifest.annotations),
            }
        )
        return 0
    output.fields(
        [
            ("artifact", examined.reference),
            ("type", kind),
            ("name", facts.name),
            ("version", facts.version),
            ("sequence", facts.sequence),
            ("expires", output.moment(facts.expires)),
            ("created", output.moment(facts.created)),
        ]
    )
    print()
    output.table(
        ("FILE", "PACKING", "SIZE", "DIGEST"),
        [
            (f.path or "(archive)", f.packing, output.size(f.descriptor.size), f.descriptor.digest)
            for f in files
        ],
    )
    print()
    if golden is not None:
        _show_golden(golden)
        print()
    if signatures:
        output.table(
            ("SIGNATURE", "IS A", "KEY HINT", "SAYS"),
            [(s["format"], s["kind"], s["hint"] or "-", s["problem"] or s["predicate"]) for s in signatures],
        )
    else:
        print("no signatures")
    output.note("Nothing of this was verified; edgemodel verify does that.")
    return 0


async def _golden(registry: "Registry", reference: "Reference", manifest: bytes) -> dict[str, Any] | None:
    """Fetch golden samples and return what they are; None when there are none."""
    from edgemodel.artifact import golden_samples, media_types
    from edgemodel.artifact.manifest import Manifest, model_files
    from edgemodel.artifact.store import Store
    from edgemodel.artifact.transfer import fetch

    for file in model_files(Manifest.parse(manifest)):
        if file.descriptor.media_type != media_types.SAMPLES:
            continue
        said: dict[str, Any] = {
            "size": file.descriptor.size,
            "samples": [],
            "tolerances": None,
            "problem": "",
        }
        with tempfile.TemporaryDirectory(prefix="edgemodel-") as name:
            store = Store(Path(name), durable=False)
            try:
                await fetch(registry, reference, file.descriptor, store)
                found = await asyncio.to_thread(golden_samples.listing, store.path(file.descriptor.digest))
            except Refused as error:
                return {**said, "problem": error.message}
        return {**said, "samples": list(found.samples), "tolerances": found.tolerances}
    return None


def _show_golden(golden: dict[str, Any]) -> None:
    named = ", ".join(golden["samples"][:_SHOWN])
    more = len(golden["samples"]) - _SHOWN
    tolerances = json.dumps(golden["tolerances"]) if golden["tolerances"] is not None else "by datatype"
    output.fields(
        [
            ("golden samples", named + (f" and {more} more" if more > 0 else "")),
            ("tolerances", tolerances if not golden["problem"] else None),
            ("problem", golden["problem"]),
        ]
    )


def _signature(item: "Evidence") -> dict[str, Any]:
    from edgemodel.artifact.signature import Unreadable

    if isinstance(item, Unreadable):
        return {
            "format": item.format,
            "kind": "unreadable",
            "hint": "",
            "predicate": "",
            "problem": item.problem,
        }
    return {
        "format": item.format,
        "kind": str(item.statement.kind),
        "hint": item.hint,
        "predicate": item.statement.predicate,
        "subjects": sorted(item.statement.subjects),
        "annotations": dict(item.statement.annotations),
        "problem": "",
    }
