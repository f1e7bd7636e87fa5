"""``edgemodel bundle``: models with signatures and deltas in one file, for sites without a line."""

import argparse
import asyncio
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgemodel.cli import command, exit_codes, options, output, progress
from edgemodel.cli.command import Commands
from edgemodel.errors import Stalled

if TYPE_CHECKING:
    from edgemodel.artifact.bundle import Created
    from edgemodel.artifact.image_layout import ImageLayout
    from edgemodel.artifact.reference import Reference
    from edgemodel.artifact.trust import Verdict


def add(commands: Commands) -> None:
    """Add the command and its three."""
    parser = commands.add_parser("bundle", help="carry models to a site in one file, without a network")
    own = parser.add_subparsers(metavar="COMMAND", required=True, dest="bundle_command")
    _add_create(own)
    _add_import(own)
    _add_inspect(own)


def _add_create(commands: Commands) -> None:
    parser = command.add(
        commands,
        "create",
        create,
        summary="write models, their signatures and deltas from a registry into one file",
        about="""
The file is an OCI image layout in a tar archive. The same models and choices give the same bytes. With --present, what
the site has already is left out, and so is every file that a delta in the bundle rebuilds from it.""",
        examples="""
edgemodel bundle create registry.example.com/models/detector:1.4.0 --to detector-1.4.0.tar
edgemodel bundle create registry.example.com/models/detector:1.5.0 --to update.tar \\
    --present registry.example.com/models/detector:1.4.0""",
    )
    parser.add_argument(
        "references", nargs="+", metavar="REFERENCE", help="registry/repository:tag or …@sha256:…"
    )
    parser.add_argument("--to", required=True, type=Path, metavar="FILE", help="the bundle to write")
    parser.add_argument(
        "--present",
        action="append",
        default=[],
        metavar="REFERENCE",
        help="a model that the site has; may be repeated",
    )
    parser.add_argument("--no-deltas", action="store_true", help="leave deltas out")
    options.add_registry(parser)
    options.add_output(parser)


def _add_import(commands: Commands) -> None:
    parser = command.add(
        commands,
        "import",
        bring_in,
        summary="put a bundle into a registry, or into a node's store",
        about="""
Every blob's digest is checked before anything changes. Into a registry: signatures and deltas first, tags last; to the
places named in the bundle, or to --to. Into a node's store (run it on the node): the node's agent takes the models from
there, judges them by the cluster's trust policies as after a download, and says Imported.
With --key or --policy, models that do not pass are refused here already.""",
        examples="""
edgemodel bundle import detector-1.4.0.tar --to registry.site.local:5000/models/detector:1.4.0 --plain-http
edgemodel bundle import update.tar --store /var/lib/edgemodel""",
    )
    parser.add_argument("bundle", type=Path, metavar="FILE", help="made by edgemodel bundle create")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--to", metavar="REFERENCE", help="registry/repository:tag, for a bundle of one model")
    where.add_argument("--store", type=Path, metavar="FOLDER", help="the node agent's store on this machine")
    options.add_trust(parser)
    options.add_registry(parser)
    options.add_output(parser)


def _add_inspect(commands: Commands) -> None:
    parser = command.add(
        commands,
        "inspect",
        inspect,
        summary="show what a bundle holds, and whether it is whole",
        about="""
Hashes everything inside. With --key or --policy it also says whether a cluster with these would run the models; without,
the signers' key ids are shown as the signatures claim them.""",
        examples="""
edgemodel bundle inspect detector-1.4.0.tar
edgemodel bundle inspect detector-1.4.0.tar --key edgemodel.pub --output json""",
    )
    parser.add_argument("bundle", type=Path, metavar="FILE", help="made by edgemodel bundle create")
    options.add_trust(parser)
    options.add_output(parser)


def create(arguments: argparse.Namespace) -> int:
    """Run ``bundle create``."""
    from edgemodel.artifact.bundle import create as write
    from edgemodel.artifact.reference import Reference

    references = [Reference.parse(text) for text in arguments.references]
    present = [Reference.parse(text) for text in arguments.present]
    if len({it.registry for it in (*references, *present)}) > 1:
        raise Stalled(
            "InvalidSpec", "all models of one bundle come from one registry; make a bundle for each"
        )

    async def work() -> "Created":
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=arguments.to.absolute().parent) as scratch:
            async with options.registry(arguments, references[0]) as registry:
                with progress.bar("bundling") as advance:
                    return await write(
                        registry,
                        references,
                        arguments.to,
                        Path(scratch),
                        present=present,
                        deltas=not arguments.no_deltas,
                        progress=advance,
                    )

    made = asyncio.run(work())
    if arguments.output == "json":
        output.document(
            {
                "file": str(arguments.to),
                "size": made.size,
                "models": [str(model) for model in made.models],
                "signatures": made.signatures,
                "deltas": made.deltas,
                "leftOut": list(made.left_out),
            }
        )
    else:
        output.fields(
            [
                ("bundle", arguments.to),
                ("size", output.size(made.size)),
                *(("model", model) for model in made.models),
                ("signatures", made.signatures),
                ("deltas", made.deltas),
                (
                    "left out",
                    f"{len(made.left_out)} layers that the site has or rebuilds" if made.left_out else None,
                ),
            ]
        )
    if not made.signatures:
        output.note("Nothing in it is signed: clusters will refuse it.")
    return exit_codes.OK


def bring_in(arguments: argparse.Namespace) -> int:
    """Run ``bundle import``."""
    from edgemodel.artifact.bundle import push
    from edgemodel.artifact.image_layout import ImageLayout
    from edgemodel.artifact.reference import Reference
    from edgemodel.node import imports

    layout = ImageLayout.open(arguments.bundle)
    models = layout.models
    if not models:
        raise Stalled("InvalidSpec", f"{arguments.bundle}: holds no model")
    for verdict in asyncio.run(_judged(layout, arguments)).values():
        verdict.or_refused()
    if arguments.store is not None:
        placed = imports.place(arguments.bundle, arguments.store)
        report: dict[str, object] = {"store": str(arguments.store), "bundle": str(placed)}
    else:
        layout.check_whole()
        target = Reference.parse(arguments.to) if arguments.to else None
        if target is not None and (len(models) > 1 or target.digest is not None):
            raise Stalled(
                "InvalidSpec", f"--to {target}: expected a tag and no digest, and a bundle of one model"
            )

        async def work() -> "list[Reference]":
            async with options.registry(arguments, target or next(iter(models))) as registry:
                return await push(layout, registry, target)

        report = {"registry": [str(reference) for reference in asyncio.run(work())]}
    if arguments.output == "json":
        output.document({"models": [str(model) for model in models], **report})
    else:
        output.fields(
            [*(("model", model) for model in models), *((name, _shown(it)) for name, it in report.items())]
        )
    return exit_codes.OK


def inspect(arguments: argparse.Namespace) -> int:
    """Run ``bundle inspect``."""
    from edgemodel.artifact.bundle import SIGNERS
    from edgemodel.artifact.image_layout import ImageLayout
    from edgemodel.artifact.manifest import Manifest

    layout = ImageLayout.open(arguments.bundle)

    async def work() -> "tuple[list[dict[str, object]], list[str]]":
        wrong = [str(digest) for digest in layout.damaged()]
        verdicts = {} if wrong else await _judged(layout, arguments)
        rows = []
        for reference, entry in layout.models.items():
            manifest = Manifest.parse(await layout.manifest(reference))
            absent = [layer for layer in manifest.layers if layout.size(layer.digest) is None]
            referrers = await layout.referrers(reference, entry.digest)
            verdict = verdicts.get(reference)
            rows.append(
                {
                    "reference": str(reference),
                    "size": sum(layer.size for layer in manifest.layers),
                    "leftOutBytes": sum(layer.size for layer in absent),
                    "referrers": len(referrers),
                    "signers": [it for it in entry.annotations.get(SIGNERS, "").split(",") if it],
                    "verified": None if verdict is None else verdict.refusal is None,
                    "verifiedBy": [] if verdict is None else list(verdict.verified_by),
                    "refusal": None if verdict is None or verdict.refusal is None else str(verdict.refusal),
                }
            )
        return rows, wrong

    rows, wrong = asyncio.run(work())
    if arguments.output == "json":
        output.document({"file": str(arguments.bundle), "whole": not wrong, "damaged": wrong, "models": rows})
    else:
        output.fields(
            [
                ("bundle", arguments.bundle),
                ("whole", "no" if wrong else "yes"),
                *(("damaged", it) for it in wrong),
            ]
        )
        for row in rows:
            print()
            output.fields([(name, _shown(value)) for name, value in row.items()])
    refused = any(row["verified"] is False for row in rows)
    return exit_codes.REFUSED if wrong or refused else exit_codes.OK


async def _judged(layout: "ImageLayout", arguments: argparse.Namespace) -> "dict[Reference, Verdict]":
    """Judge every model of a bundle under the policies that the options name; nothing without any."""
    from edgemodel.artifact.verify import examine

    if not arguments.key and not arguments.policy:
        return {}
    policies = options.policies(arguments)
    return {
        reference: (await examine(layout, replace(reference, tag=None))).judge(
            policies, mark=arguments.min_sequence, now=datetime.now(UTC)
        )
        for reference in layout.models
    }


def _shown(value: object) -> object:
    return ", ".join(str(it) for it in value) if isinstance(value, list) else value
