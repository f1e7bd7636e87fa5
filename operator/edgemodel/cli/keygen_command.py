"""``edgemodel keygen``: a new key pair."""

import argparse
import os
from pathlib import Path

from edgemodel.cli import command, options, output
from edgemodel.cli.command import Commands
from edgemodel.errors import Stalled


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "keygen",
        run,
        summary="make a key pair for signing",
        about="""
Writes an ECDSA P-256 key, encrypted with a password in cosign's form, readable by its owner only, and the public key
beside it. The public key goes into a ModelTrustPolicy; the private key never leaves the publisher.
`cosign sign --key` takes the private key too. Existing files are never overwritten.""",
        examples="""
edgemodel keygen
EDGEMODEL_PASSWORD=… edgemodel keygen --output-key-prefix keys/site""",
    )
    parser.add_argument(
        "--output-key-prefix",
        type=Path,
        default=Path("edgemodel"),
        metavar="PREFIX",
        help="files are PREFIX.key and PREFIX.pub (default: edgemodel)",
    )
    parser.add_argument(
        "--unencrypted",
        action="store_true",
        help="no password: for a secret store that protects the file itself",
    )
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.artifact.keys import PrivateKey

    prefix: Path = arguments.output_key_prefix
    private, public = prefix.with_name(prefix.name + ".key"), prefix.with_name(prefix.name + ".pub")
    for path in (private, public):
        if path.exists():
            raise Stalled(
                "InvalidSpec", f"{path}: exists and is not overwritten; choose another --output-key-prefix"
            )
    key = PrivateKey.generate()
    if arguments.unencrypted:
        content = key.export_plain()
    else:
        content = key.export_cosign(options.password(f"Password for {private}: ", twice=True))
    _write(private, content, 0o600)
    _write(public, key.public.pem.encode(), 0o644)
    if arguments.output == "json":
        output.document({"privateKey": str(private), "publicKey": str(public), "keyId": key.public.key_id})
    else:
        output.fields([("private key", private), ("public key", public), ("key id", key.public.key_id)])
    return 0


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except OSError as error:
        raise Stalled("InvalidSpec", f"{path}: cannot be written ({error.strerror})") from None
