"""What a signature says: the in-toto statement or simple-signing payload under it, read once its bytes are at hand.

Promises: a ``Statement`` says of what kind it is, so that an attestation can never pass for a signature: both are made
with the same key over the same digest, and only the predicate type tells a scan report from a release.
Leaves to others: whether anybody signed it (``signature``), and for what (``trust``).

Formats: in-toto Statement v1 and v0.1; sigstore/cosign specs/SIGNATURE_SPEC.md; sigstore/model-transparency
src/model_signing/_signing/signing.py (predicate ``https://model_signing/signature/v1.0``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edgemodel.artifact import strict_json
from edgemodel.artifact.digest import Digest, Hasher
from edgemodel.artifact.manifest_build import SIGN_PREDICATE
from edgemodel.artifact.model_files import MAX_PATH
from edgemodel.errors import Refused

FILES_PREDICATE = "https://model_signing/signature/v1.0"
"""OpenSSF model signing: a list of files with their digests."""
LEGACY_TYPE = "cosign container image signature"
MAX_BYTES = 4 << 20
"""Longest statement in bytes; one that lists files may be long."""
MAX_FILES = 4096

_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")


class Kind(StrEnum):
    """What the signer meant."""

    SIGNATURE = "signature"
    """The manifest with this digest is mine."""
    FILES = "files"
    """These files are mine, wherever they are packed."""
    ATTESTATION = "attestation"
    """Something else about the manifest: a scan, a bill of materials. Vouches for nothing."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The content of one signature."""

    kind: Kind
    predicate: str
    """Predicate type as written; of a simple-signing payload its ``type``."""
    subjects: frozenset[Digest]
    """Manifests it is about."""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What ``cosign sign -a`` added."""
    files: tuple[tuple[str, Digest], ...] = ()
    """Of kind FILES: path and digest of each file, by path."""


def unreadable(message: str) -> Refused:
    """Return the refusal for a signature whose form is wrong."""
    return Refused("SignatureInvalid", message)


def parse_statement(data: bytes) -> Statement:
    """Read an in-toto statement.

    Raises:
        Refused: ``SignatureInvalid``; the message names the member.
    """
    document = object_at(parsed(data, "statement", MAX_BYTES), "statement")
    if document.get("_type") not in _STATEMENTS:
        raise unreadable(f"statement._type: expected {_STATEMENTS[0]}, found {document.get('_type')!r:.80}")
    predicate = document.get("predicateType")
    if not isinstance(predicate, str) or not predicate:
        raise unreadable("statement.predicateType: expected a string")
    subjects = document.get("subject")
    if not isinstance(subjects, list) or not subjects:
        raise unreadable("statement.subject: expected an array with at least one entry")
    digests = [_subject(subject, f"statement.subject[{i}]") for i, subject in enumerate(subjects)]
    if predicate == FILES_PREDICATE:
        return _files(document, digests)
    annotations: dict[str, str] = {}
    for subject in subjects:
        annotations.update(_texts(subject.get("annotations"), "statement.subject.annotations"))
    kind = Kind.SIGNATURE if predicate == SIGN_PREDICATE else Kind.ATTESTATION
    return Statement(kind, predicate, frozenset(filter(None, digests)), annotations)


def parse_simple_signing(data: bytes) -> Statement:
    """Read the payload of cosign's older signatures.

    Raises:
        Refused: ``SignatureInvalid``; the message names the member.
    """
    document = object_at(parsed(data, "payload", MAX_BYTES), "payload")
    critical = object_at(document.get("critical"), "payload.critical")
    kind = critical.get("type")
    if kind != LEGACY_TYPE:
        raise unreadable(f"payload.critical.type: expected {LEGACY_TYPE!r}, found {kind!r:.80}")
    image = object_at(critical.get("image"), "payload.critical.image")
    try:
        digest = Digest.parse(image.get("docker-manifest-digest"))
    except ValueError as error:
        raise unreadable(f"payload.critical.image.docker-manifest-digest: {error}") from None
    return Statement(
        Kind.SIGNATURE, LEGACY_TYPE, frozenset({digest}), _texts(document.get("optional"), "payload.optional")
    )


def _files(document: Mapping[str, Any], subjects: list[Digest | None]) -> Statement:
    predicate = object_at(document.get("predicate"), "statement.predicate")
    how = object_at(predicate.get("serialization"), "statement.predicate.serialization")
    if how.get("method") != "files" or how.get("hash_type") != "sha256":
        raise unreadable(
            "statement.predicate.serialization: expected method files and hash_type sha256 (model_signing's defaults), "
            f"found {how.get('method')!r:.40} and {how.get('hash_type')!r:.40}"
        )
    resources = predicate.get("resources")
    if not isinstance(resources, list) or not 0 < len(resources) <= MAX_FILES:
        raise unreadable(f"statement.predicate.resources: expected an array of 1 to {MAX_FILES} files")
    files: dict[str, Digest] = {}
    root = Hasher()
    for i, entry in enumerate(resources):
        where = f"statement.predicate.resources[{i}]"
        resource = object_at(entry, where)
        name, algorithm = resource.get("name"), resource.get("algorithm")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_PATH or name in files:
            raise unreadable(f"{where}.name: expected a path that no other entry has, found {name!r:.80}")
        if algorithm != "sha256":
            raise unreadable(f"{where}.algorithm: expected sha256, found {algorithm!r:.40}")
        files[name] = _hex(resource.get("digest"), f"{where}.digest")
        root.update(bytes.fromhex(files[name].hex))
    if subjects != [root.digest()]:
        raise unreadable("statement.subject: expected one digest, that of all files' digests in their order")
    return Statement(Kind.FILES, FILES_PREDICATE, frozenset(), files=tuple(sorted(files.items())))


def parsed(data: bytes, what: str, max_bytes: int) -> Any:
    """Return what JSON says that has one meaning only; ``what`` names the document in the refusal."""
    try:
        return strict_json.parse(data, max_bytes=max_bytes)
    except strict_json.NotStrictJson as error:
        raise unreadable(f"the {what} {error}") from None


def object_at(value: Any, where: str) -> dict[str, Any]:
    """Return a value that must be a JSON object; ``where`` names the member in the refusal."""
    if not isinstance(value, dict):
        raise unreadable(f"{where}: expected an object")
    return value


def _subject(value: Any, where: str) -> Digest | None:
    """Return the sha256 of a subject; None when it has digests of other algorithms only."""
    digests = object_at(object_at(value, where).get("digest"), f"{where}.digest")
    return _hex(digests["sha256"], f"{where}.digest.sha256") if "sha256" in digests else None


def _hex(value: Any, where: str) -> Digest:
    try:
        return Digest.parse(f"sha256:{value}" if isinstance(value, str) else value)
    except ValueError as error:
        raise unreadable(f"{where}: {error}") from None


def _texts(value: Any, where: str) -> dict[str, str]:
    """Return the members that are strings; ``null`` and other values say nothing to us."""
    members = object_at(value, where) if value is not None else {}
    return {name: text for name, text in members.items() if isinstance(text, str)}
