"""``edgemodel sign``: a signature for an artifact that is in a registry."""

import argparse
import asyncio
from pathlib import Path

from edgemodel.cli import command, options, output
from edgemodel.cli.command import Commands
from edgemodel.errors import Stalled


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "sign",
        run,
        summary="sign an artifact that is in a registry",
        about="""
Writes the signature that cosign 3 writes (a Sigstore bundle, attached as a referrer; where the registry has no
referrers API, listed under the tag sha256-…), so `cosign verify --key … --insecure-ignore-tlog=true` accepts it.
What is signed is the digest of the manifest; a tag is resolved first, and the digest is printed.
Nothing is sent to a transparency log.""",
        examples="""
edgemodel sign registry.example.com/models/detector:1.4.0 --key edgemodel.key
COSIGN_PASSWORD=… edgemodel sign registry.example.com/models/detector@sha256:… --key cosign.key -a audited=yes""",
    )
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag or …@sha256:…")
    parser.add_argument(
        "--key",
        required=True,
        type=Path,
        metavar="FILE",
        help="private key: PKCS#8 PEM, or cosign's own file; "
        "password from $EDGEMODEL_PASSWORD, $COSIGN_PASSWORD or the terminal",
    )
    parser.add_argument(
        "-a",
        "--annotation",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="sign this too; may be repeated",
    )
    options.add_created(parser)
    options.add_registry(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.artifact.attach import Attached, attach
    from edgemodel.artifact.reference import Reference
    from edgemodel.artifact.signature import sign_bundle

    reference = Reference.parse(arguments.reference)
    annotations = dict(_annotation(text) for text in arguments.annotation)
    key = options.private_key(arguments.key)
    moment = options.created(arguments.created)

    async def sign() -> Attached:
        async with options.registry(arguments, reference) as registry:
            pinned = reference.pinned(await registry.resolve(reference))
            assert pinned.digest is not None
            return await attach(registry, pinned, sign_bundle(key, pinned.digest, annotations), moment)

    attached = asyncio.run(sign())
    if arguments.output == "json":
        output.document(
            {
                "reference": str(attached.subject),
                "digest": attached.subject.digest,
                "signature": attached.digest,
                "fallbackTag": attached.fallback_tag,
                "keyId": key.public.key_id,
            }
        )
    else:
        output.fields(
            [
                ("signed", attached.subject),
                ("signature", attached.digest),
                ("listed under tag", attached.fallback_tag),
                ("key", key.public.key_id),
            ]
        )
    return 0


def _annotation(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Stalled("InvalidSpec", f"--annotation {text!r}: expected NAME=VALUE")
    return name, value
