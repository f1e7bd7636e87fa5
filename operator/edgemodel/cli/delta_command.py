"""``edgemodel delta``: deltas from older versions to one that is published already."""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgemodel.cli import command, deltas, options, output
from edgemodel.cli.command import Commands

if TYPE_CHECKING:
    from edgemodel.artifact.attach import Attached
    from edgemodel.artifact.reference import Reference


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "delta",
        run,
        summary="make deltas from older versions to a published one",
        about="""
Nodes that have an older version then fetch what changed, and not the model. For each file that changed every codec is
tried and the smallest result is attached to the new version; one over 80 % of the file is dropped. Deltas need no
signature: what a node rebuilds must have the digest that was signed, else it fetches the file whole.
`edgemodel publish --delta-from` does the same before anybody sees the new version, which is better.""",
        examples="""
edgemodel delta registry.example.com/models/detector:1.5.0 --from registry.example.com/models/detector:1.4.0
edgemodel delta registry.example.com/models/detector:1.5.0 --from registry.example.com/models/detector:1.4.0 \\
    --from registry.example.com/models/detector:1.3.0 --from-dir ./detector-1.4.0""",
    )
    parser.add_argument(
        "target", metavar="TARGET", help="the new version: registry/repository:tag or …@sha256:…"
    )
    parser.add_argument(
        "--from",
        dest="delta_from",
        required=True,
        action="append",
        metavar="REFERENCE",
        help="an older version that nodes have; may be repeated",
    )
    deltas.add_from_dir(parser)
    options.add_registry(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.artifact.reference import Reference

    deltas.need_extras()
    target = Reference.parse(arguments.target)
    old = deltas.references(arguments.delta_from, target)
    with tempfile.TemporaryDirectory(prefix="edgemodel-") as folder:
        pinned, made, attached = asyncio.run(_make(arguments, target, old, Path(folder)))
    if arguments.output == "json":
        output.document(
            {"reference": str(pinned), "digest": pinned.digest, **deltas.document(made, attached)}
        )
        return 0
    output.fields([("target", target), ("digest", pinned.digest)])
    deltas.show(made)
    if not attached:
        output.note("Nothing was attached: nodes fetch what changed whole.")
    return 0


async def _make(
    arguments: argparse.Namespace, target: "Reference", old: "list[Reference]", folder: Path
) -> "tuple[Reference, list[deltas.Made], list[Attached]]":
    from edgemodel.artifact.delta_publish import Maker

    new, *before = await deltas.bring(arguments, [target, *old], folder)
    made = await deltas.make(Maker(folder / "patches"), new.version, before)
    async with options.registry(arguments, target) as registry:
        attached = await deltas.attach(registry, new.reference, new.manifest, made)
    return new.reference, made, attached
