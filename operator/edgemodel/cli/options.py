"""Options that several commands share, and what they mean: registry access, keys and policies, passwords, times.

Promises: no secret is taken from or shown in the argument list; what cannot be read is refused by the file's name.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgemodel.errors import Stalled

if TYPE_CHECKING:
    from edgemodel.artifact.credentials import Credentials
    from edgemodel.artifact.keys import PrivateKey
    from edgemodel.artifact.policy import Policy
    from edgemodel.artifact.reference import Reference
    from edgemodel.artifact.registry import Registry

PASSWORD_VARIABLES = ("EDGEMODEL_PASSWORD", "COSIGN_PASSWORD")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add ``--output``."""
    parser.add_argument(
        "--output",
        choices=("text", "json"),
        default="text",
        help="how the result is printed: text for people, json for programs (default: text)",
    )


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a registry is reached."""
    group = parser.add_argument_group("registry")
    group.add_argument(
        "--docker-config",
        action="append",
        type=Path,
        metavar="FILE",
        help="docker config.json with credentials; may be repeated, tried in order "
        "(default: $DOCKER_CONFIG/config.json or ~/.docker/config.json)",
    )
    group.add_argument(
        "--plain-http",
        action="store_true",
        help="speak HTTP without TLS to this registry (never tried by itself)",
    )
    group.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help="PEM of the authorities to trust for this registry, not the system's",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the options that say whose signature counts."""
    group = parser.add_argument_group("trust")
    group.add_argument(
        "--key",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="public key (PEM) that counts; may be repeated",
    )
    group.add_argument(
        "--policy",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="file with ModelTrustPolicy objects, YAML or JSON, keys inline; may be repeated",
    )
    group.add_argument(
        "--threshold",
        type=int,
        default=1,
        metavar="N",
        help="how many of the --key must have signed (default: 1)",
    )
    group.add_argument(
        "--min-sequence", type=int, metavar="N", help="refuse a release whose signed sequence is lower"
    )


def add_created(parser: argparse.ArgumentParser) -> None:
    """Add ``--created``."""
    parser.add_argument(
        "--created",
        metavar="TIME",
        help="creation time to write, RFC 3339 (default: $SOURCE_DATE_EPOCH, else now); "
        "the same time and files give the same digest",
    )


@contextlib.asynccontextmanager
async def registry(arguments: argparse.Namespace, reference: "Reference") -> AsyncIterator["Registry"]:
    """Open the registry of a reference as the options say."""
    from edgemodel.artifact.registry import Registry
    from edgemodel.artifact.registry_connections import Connections
    from edgemodel.artifact.registry_settings import HostSettings, RegistrySettings

    if arguments.plain_http and arguments.ca_file:
        raise Stalled("InvalidSpec", "--plain-http and --ca-file exclude each other")
    ca = read_text(arguments.ca_file) if arguments.ca_file else None
    settings = RegistrySettings({reference.registry: HostSettings(arguments.plain_http, ca)})
    async with Connections(settings) as connections:
        yield Registry(connections, _credentials(arguments.docker_config, reference.registry))


def _credentials(files: Sequence[Path] | None, host: str) -> "Credentials":
    from edgemodel.artifact.credentials import Credentials
    from edgemodel.cli.credential_helpers import with_helper

    if files is None:
        default = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
        files = [default] if default.is_file() else []
    names = [str(path) for path in files]
    configs = [with_helper(read_text(path), host, str(path)) for path in files]
    return Credentials.parse(configs, sources=names)


def policies(arguments: argparse.Namespace) -> "list[Policy]":
    """Return the policies that ``--key`` and ``--policy`` name.

    Raises:
        Stalled: ``InvalidSpec``; there are none, or one cannot be read.
    """
    from edgemodel.artifact.keys import PublicKey
    from edgemodel.artifact.policy import Policy, TrustedKey

    found: list[Policy] = []
    if arguments.key:
        keys = []
        for path in arguments.key:
            try:
                keys.append(TrustedKey(path.name, PublicKey.from_pem(read_text(path))))
            except Stalled as error:
                raise Stalled(error.reason, f"{path}: {error.message}") from None
        distinct = len({key.key.key_id for key in keys})
        if not 1 <= arguments.threshold <= distinct:
            raise Stalled(
                "InvalidSpec", f"--threshold is {arguments.threshold}; there are {distinct} distinct keys"
            )
        found.append(
            Policy(
                name="command-line",
                images=("**",),
                keys=tuple(keys),
                threshold=arguments.threshold,
                formats=frozenset({"Bundle", "Legacy", "OpenSSF"}),
            )
        )
    for path in arguments.policy:
        found.extend(_policies_in(path))
    if not found:
        raise Stalled(
            "InvalidSpec", "nobody's signature would count: name a public key with --key, or a --policy file"
        )
    return found


def _policies_in(path: Path) -> "list[Policy]":
    import json

    from edgemodel.artifact.policy import Policy

    try:
        import yaml
    except ImportError:
        raise Stalled("InvalidSpec", "--policy needs PyYAML: install edgemodel[cli]") from None
    try:
        documents = [document for document in yaml.safe_load_all(read_text(path)) if document]
    except yaml.YAMLError as error:
        raise Stalled("InvalidSpec", f"{path}: is neither YAML nor JSON: {error}") from None
    found = [
        Policy.from_json(json.dumps(document, default=_time))
        for document in documents
        if isinstance(document, dict) and document.get("kind") == "ModelTrustPolicy"
    ]
    if not found:
        raise Stalled("InvalidSpec", f"{path}: expected at least one object of kind ModelTrustPolicy")
    return found


def _time(value: object) -> str:
    """YAML reads bare times as such; policies want their text."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"expected JSON values, found {type(value).__name__}")


def private_key(path: Path) -> "PrivateKey":
    """Load a private key, asking for its password if it needs one.

    Raises:
        Stalled: ``InvalidSpec``; the file or the password is wrong, or nobody can be asked.
    """
    from edgemodel.artifact.keys import PrivateKey

    content = read_bytes(path)
    try:
        if b"ENCRYPTED" not in content:
            return PrivateKey.load(content)
        return PrivateKey.load(content, password(f"Password of {path}: "))
    except Stalled as error:
        raise Stalled(error.reason, f"{path}: {error.message}") from None


def password(prompt: str, *, twice: bool = False) -> bytes:
    """Return a password from the environment or from the terminal.

    Raises:
        Stalled: ``InvalidSpec``; there is neither, or the two entries differ.
    """
    for variable in PASSWORD_VARIABLES:
        if variable in os.environ:
            return os.environ[variable].encode()
    if not sys.stdin.isatty():
        raise Stalled(
            "InvalidSpec", f"a password is needed: set {PASSWORD_VARIABLES[0]}, or run this in a terminal"
        )
    import getpass

    entered = getpass.getpass(prompt)
    if twice and getpass.getpass("Once more: ") != entered:
        raise Stalled("InvalidSpec", "the two passwords differ")
    return entered.encode()


def created(text: str | None) -> datetime:
    """Return the creation time that was asked for.

    Raises:
        Stalled: ``InvalidSpec``; it cannot be read.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if text:
        return moment(text, "--created")
    if epoch:
        if not epoch.isdigit():
            raise Stalled(
                "InvalidSpec", f"SOURCE_DATE_EPOCH: expected seconds since 1970, found {epoch[:40]!r}"
            )
        return datetime.fromtimestamp(int(epoch), UTC)
    return datetime.fromtimestamp(int(time.time()), UTC)


def moment(text: str, option: str) -> datetime:
    """Read an RFC 3339 time."""
    from edgemodel.artifact.manifest import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise Stalled("InvalidSpec", f"{option}: {error}") from None


def read_text(path: Path) -> str:
    """Read a text file."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError:
        raise Stalled("InvalidSpec", f"{path}: expected text in UTF-8") from None


def read_bytes(path: Path) -> bytes:
    """Read a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Stalled("InvalidSpec", f"{path}: cannot be read ({error.strerror})") from None
