"""``edgemodel pull``: a verified model into a folder."""

import argparse
import asyncio
from datetime import UTC, datetime
from pathlib import Path

from edgemodel.cli import command, options, output, progress
from edgemodel.cli.command import Commands
from edgemodel.errors import Stalled


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "pull",
        run,
        summary="download a model into a folder, verified",
        about="""
Nothing of the model is downloaded before its signatures were checked, and every file has the digest that was
signed. The folder is what the inference server opens: the model's files and a model.json, which is written last.
What is in the folder is replaced; a pull that was interrupted goes on where it stopped.""",
        examples="""
edgemodel pull registry.example.com/models/detector:1.4.0 --to ./detector --key edgemodel.pub
edgemodel pull registry.example.com/models/detector@sha256:… --to ./detector --policy trust-policy.yaml""",
    )
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag or …@sha256:…")
    parser.add_argument(
        "--to", required=True, type=Path, metavar="FOLDER", help="empty, new, or an earlier pull's folder"
    )
    parser.add_argument(
        "--model-file", metavar="PATH", help="entry file in the artifact (default: the only .onnx)"
    )
    parser.add_argument("--name", default="", help="model name to write (default: the signed one)")
    options.add_trust(parser)
    options.add_registry(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.artifact.model_directory import PRIVATE
    from edgemodel.artifact.pull import PulledModel, Wish, pull
    from edgemodel.artifact.reference import Reference

    reference = Reference.parse(arguments.reference)
    folder: Path = arguments.to
    if folder.exists() and not folder.is_dir():
        raise Stalled("InvalidSpec", f"{folder}: expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PRIVATE).is_dir():
        raise Stalled(
            "InvalidSpec", f"{folder}: holds files that no pull has put there; name an empty or a new folder"
        )
    wish = Wish(
        options.policies(arguments),
        name=arguments.name,
        model_file=arguments.model_file,
        mark=arguments.min_sequence,
        now=datetime.now(UTC),
    )

    async def download() -> PulledModel:
        async with options.registry(arguments, reference) as registry:
            with progress.bar("pulling") as advance:
                return await pull(registry, reference, folder, wish, progress=advance)

    model = asyncio.run(download())
    files = model.verdict.files
    if arguments.output == "json":
        output.document(
            {
                "reference": str(model.reference),
                "digest": model.reference.digest,
                "folder": str(folder),
                "name": model.description.name,
                "version": model.description.version,
                "file": model.description.file,
                "verifiedBy": model.verdict.verified_by,
                "downloadedBytes": model.downloaded,
            }
        )
    else:
        output.fields(
            [
                ("pulled", model.reference),
                ("verified by", ", ".join(model.verdict.verified_by)),
                ("folder", folder),
                ("model file", model.description.file),
                ("size", output.size(sum(file.descriptor.size for file in files))),
                ("downloaded", output.size(model.downloaded)),
                *(("warning", warning) for warning in model.verdict.warnings),
            ]
        )
    return 0
