"""``edgemodel publish``: files to a signed artifact in a registry."""

import argparse
import asyncio
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgemodel.cli import command, options, output, progress
from edgemodel.cli.command import Commands

if TYPE_CHECKING:
    from edgemodel.artifact.keys import PrivateKey
    from edgemodel.artifact.publish import Prepared
    from edgemodel.artifact.reference import Reference


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "publish",
        run,
        summary="push model files to a registry as an artifact, and sign it",
        about="""
Writes a CNCF ModelPack artifact: one file a layer, readable by oras and modctl. Weights of an ONNX model of 1 MiB
and more go into a file of their own, aligned so that servers can map it. Input files are never changed.
Name, version, sequence and expiry become part of what is signed. The sequence is a whole number that grows with
every release: clusters refuse to go back to a lower one.
With --key the tag moves only when the signature is in place, so nobody ever sees the tag unsigned.
The same files, facts and --created give the same digest.""",
        examples="""
edgemodel publish model.onnx labels.txt --to registry.example.com/models/detector:1.4.0 \\
    --version 1.4.0 --sequence 7 --key edgemodel.key
edgemodel publish ./detector/ --to localhost:5000/models/detector:dev --version dev --plain-http""",
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="files, or folders that are taken whole"
    )
    parser.add_argument(
        "--to", required=True, metavar="REFERENCE", help="registry/repository:tag to publish to"
    )
    facts = parser.add_argument_group("release facts")
    facts.add_argument("--version", metavar="TEXT", help="version for people")
    facts.add_argument(
        "--sequence", type=int, metavar="N", help="grows with every release; what prevents going back"
    )
    facts.add_argument(
        "--name",
        metavar="NAME",
        help="the model this is, the end of the repository's path (default: its last component)",
    )
    facts.add_argument(
        "--expires", metavar="TIME", help="from when on it must not be taken into use, RFC 3339"
    )
    options.add_created(facts)  # type: ignore[arg-type]  # a group takes arguments as a parser does
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="private key to sign with: PKCS#8 PEM, or cosign's own file; "
        "password from $EDGEMODEL_PASSWORD, $COSIGN_PASSWORD or the terminal",
    )
    parser.add_argument("--keep-weights-inside", action="store_true", help="leave ONNX files as they are")
    options.add_registry(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.artifact.manifest import Release
    from edgemodel.artifact.publish import collect, prepare
    from edgemodel.artifact.reference import Reference
    from edgemodel.errors import Stalled

    reference = Reference.parse(arguments.to)
    if reference.tag is None or reference.digest is not None:
        raise Stalled("InvalidSpec", f"--to {reference}: expected registry/repository:tag, without a digest")
    key = options.private_key(arguments.key) if arguments.key else None
    moment = options.created(arguments.created)
    release = Release(
        name=arguments.name or reference.repository.rpartition("/")[2],
        version=arguments.version,
        sequence=arguments.sequence,
        expires=options.moment(arguments.expires, "--expires") if arguments.expires else None,
        created=moment,
    )
    with tempfile.TemporaryDirectory(prefix="edgemodel-") as folder:
        prepared = prepare(
            collect(arguments.files), release, Path(folder), external=not arguments.keep_weights_inside
        )
        signature = asyncio.run(_push(arguments, reference, prepared, key, moment))
    if not f"/{reference.repository}".endswith(f"/{release.name}"):
        output.note(
            f"Clusters will refuse it: it is named {release.name}, and {reference.repository} does not end so (WrongModel)."
        )
    pinned = reference.pinned(prepared.digest)
    if arguments.output == "json":
        output.document(
            {
                "reference": str(pinned),
                "tag": reference.tag,
                "digest": prepared.digest,
                "size": prepared.size,
                "files": [
                    {"path": file.path, "digest": file.descriptor.digest, "size": file.descriptor.size}
                    for file in prepared.files
                ],
                "signature": signature,
            }
        )
    else:
        output.table(
            ("FILE", "SIZE", "DIGEST"),
            [(f.path, output.size(f.descriptor.size), f.descriptor.digest) for f in prepared.files],
        )
        print()
        output.fields([("published", reference), ("digest", prepared.digest), ("signature", signature)])
        if signature is None:
            output.note("It is not signed yet: clusters refuse it until edgemodel sign has signed it.")
    return 0


async def _push(
    arguments: argparse.Namespace,
    reference: "Reference",
    prepared: "Prepared",
    key: "PrivateKey | None",
    moment: datetime,
) -> str | None:
    """Upload, sign, and only then move the tag; return the signature's digest, None without a key."""
    from edgemodel.artifact.attach import attach
    from edgemodel.artifact.publish import move_tag, upload
    from edgemodel.artifact.signature import sign_bundle

    async with options.registry(arguments, reference) as registry:
        with progress.bar("pushing") as advance:
            pinned = await upload(registry, reference, prepared, advance)
        signature = None
        if key is not None:
            signature = (await attach(registry, pinned, sign_bundle(key, prepared.digest), moment)).digest
        await move_tag(registry, reference, prepared)
    return signature
