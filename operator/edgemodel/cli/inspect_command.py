"""``edgemodel inspect``: what an artifact says of itself and what is attached to it; nothing of it is checked.

With ``--delta``: how two versions differ, and what that costs (``delta_tables``).
"""

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from edgemodel.cli import command, deltas, options, output
from edgemodel.cli.command import Commands

if TYPE_CHECKING:
    from edgemodel.artifact.signature import Evidence


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "inspect",
        run,
        summary="show an artifact's files, release facts, signatures and deltas, unverified",
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
    from edgemodel.artifact.verify import Examined, examine

    if (arguments.reference is None) == (arguments.delta is None):
        arguments.fail("expected either a REFERENCE or --delta OLD NEW")
    if arguments.delta is not None:
        from edgemodel.cli import delta_tables

        return delta_tables.run(arguments)
    reference = Reference.parse(arguments.reference)

    async def look() -> Examined:
        async with options.registry(arguments, reference) as registry:
            return await examine(registry, reference)

    examined = asyncio.run(look())
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
    if signatures:
        output.table(
            ("SIGNATURE", "IS A", "KEY HINT", "SAYS"),
            [(s["format"], s["kind"], s["hint"] or "-", s["problem"] or s["predicate"]) for s in signatures],
        )
    else:
        print("no signatures")
    output.note("Nothing of this was verified; edgemodel verify does that.")
    return 0


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
