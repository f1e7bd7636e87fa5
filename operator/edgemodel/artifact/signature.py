"""Signatures as they are found beside an artifact, and making new ones. No clock, no network, no trust.

Reads Sigstore bundles (what cosign 3 writes, and OpenSSF's ``model.sig``) and cosign's older simple signing; writes
what ``cosign sign --key`` 3 writes.

Promises:

* A signature is checked over the bytes that were received, never over a document written anew.
* What a document says outside the signed bytes decides nothing: not the key hint, not the key id, not unknown members.
  So of any alteration to a bundle one of two things is true: it is refused, or ``signed`` (and with it the
  ``statement``, which is read from nothing else) is the same as before.
* JSON has one meaning (``strict_json``) and base64 one spelling (``strict_base64``).

Leaves to others: which keys count, and whether the statement is about the artifact at hand (``trust``).

Formats: sigstore/protobuf-specs sigstore_bundle.proto (v0.3); secure-systems-lab/dsse protocol.md; sigstore/cosign
specs/SIGNATURE_SPEC.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgemodel.artifact import media_types, strict_base64
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.keys import PrivateKey, PublicKey
from edgemodel.artifact.manifest_build import SIGN_PREDICATE
from edgemodel.artifact.statement import (
    MAX_BYTES,
    Kind,
    Statement,
    object_at,
    parse_simple_signing,
    parse_statement,
    parsed,
    unreadable,
)
from edgemodel.errors import Refused

__all__ = [
    "Evidence",
    "Format",
    "Kind",
    "PrivateKey",
    "PublicKey",
    "SignatureEvidence",
    "Statement",
    "Unreadable",
    "parse_bundle",
    "parse_legacy",
    "parse_openssf",
    "read_bundle",
    "read_legacy",
    "sign_bundle",
]

Format = Literal["Bundle", "Legacy", "OpenSSF"]

MAX_BUNDLE = 2 * MAX_BYTES
"""Longest bundle in bytes: base64 makes a third more of a statement."""
MAX_SIGNATURE = 2048
"""Longest signature in bytes: RSA of 8192 bits has 1024."""
MAX_HINT = 1024

_BUNDLES = frozenset(
    {media_types.BUNDLE} | {f"{media_types.BUNDLE_PREFIX}+json;version=0.{minor}" for minor in (1, 2, 3)}
)


@dataclass(frozen=True, slots=True)
class SignatureEvidence:
    """One signature and what it is over; whether it is good depends on the key it is held against."""

    format: Format
    signed: bytes = field(repr=False)
    """The very bytes under the signature."""
    signature: bytes = field(repr=False)
    statement: Statement
    """Read from ``signed``, and from nothing else."""
    hint: str = ""
    """Which key the signer says it was. Not signed: good for a better message, never for a decision."""

    def verified_by(self, key: PublicKey) -> bool:
        """Tell whether the key's owner made this signature."""
        return key.verify(self.signature, self.signed)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that was attached as a signature and is none; kept so that a refusal can speak of it."""

    format: Format
    problem: str


Evidence = SignatureEvidence | Unreadable


def parse_bundle(data: bytes) -> SignatureEvidence:
    """Read a Sigstore bundle around a DSSE envelope, signed with a key.

    A bundle whose predicate is OpenSSF's list of files comes back with ``format`` OpenSSF.

    Raises:
        Refused: ``SignatureInvalid``; the message names the member.
    """
    document = object_at(parsed(data, "bundle", MAX_BUNDLE), "bundle")
    media_type = document.get("mediaType")
    if not isinstance(media_type, str) or media_type not in _BUNDLES:
        raise unreadable(f"bundle.mediaType: expected {media_types.BUNDLE}, found {media_type!r:.120}")
    hint = _hint(object_at(document.get("verificationMaterial"), "bundle.verificationMaterial"))
    if "messageSignature" in document:
        raise unreadable(
            "bundle.messageSignature: signs bare bytes; expected a dsseEnvelope as cosign sign writes"
        )
    envelope = object_at(document.get("dsseEnvelope"), "bundle.dsseEnvelope")
    if envelope.get("payloadType") != media_types.IN_TOTO:
        raise unreadable(f"bundle.dsseEnvelope.payloadType: expected {media_types.IN_TOTO}")
    payload = _base64(envelope.get("payload"), "bundle.dsseEnvelope.payload")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise unreadable("bundle.dsseEnvelope.signatures: expected exactly one")
    one = object_at(signatures[0], "bundle.dsseEnvelope.signatures[0]")
    statement = parse_statement(payload)
    return SignatureEvidence(
        format="OpenSSF" if statement.kind is Kind.FILES else "Bundle",
        signed=_pre_authentication_encoding(payload),
        signature=_signature(one.get("sig"), "bundle.dsseEnvelope.signatures[0].sig"),
        statement=statement,
        hint=hint,
    )


def parse_openssf(data: bytes) -> SignatureEvidence:
    """Read a ``model.sig`` file: a bundle that lists files.

    Raises:
        Refused: ``SignatureInvalid``; the message names the member.
    """
    evidence = parse_bundle(data)
    if evidence.format != "OpenSSF":
        raise unreadable(
            f"statement.predicateType: expected a list of files, found {evidence.statement.predicate!r:.120}"
        )
    return evidence


def parse_legacy(payload: bytes, signature: str) -> SignatureEvidence:
    """Read one layer of cosign's ``sha256-<hex>.sig`` manifest.

    Args:
        payload: the layer's blob.
        signature: the layer's annotation ``dev.cosignproject.cosign/signature``.

    Raises:
        Refused: ``SignatureInvalid``; the message names the member.
    """
    return SignatureEvidence(
        format="Legacy",
        signed=payload,
        signature=_signature(signature, f"annotation {media_types.COSIGN_SIGNATURE}"),
        statement=parse_simple_signing(payload),
    )


def read_bundle(data: bytes, format: Format = "Bundle") -> Evidence:  # noqa: A002 - the word of the API
    """As ``parse_bundle``, with ``Unreadable`` in place of an error: one bad bundle must not hide a good one."""
    try:
        return parse_openssf(data) if format == "OpenSSF" else parse_bundle(data)
    except Refused as error:
        return Unreadable(format, error.message)


def read_legacy(payload: bytes, signature: str) -> Evidence:
    """As ``parse_legacy``, with ``Unreadable`` in place of an error."""
    try:
        return parse_legacy(payload, signature)
    except Refused as error:
        return Unreadable("Legacy", error.message)


def sign_bundle(key: PrivateKey, subject: Digest, annotations: Mapping[str, str] | None = None) -> bytes:
    """Sign a manifest's digest and return the bundle, as ``cosign sign --key`` 3 writes it.

    Args:
        key: signs.
        subject: digest of the manifest.
        annotations: more facts to sign, as ``cosign sign -a``.
    """
    about: dict[str, Any] = {"digest": {"sha256": subject.hex}}
    if annotations:
        about["annotations"] = dict(sorted(annotations.items()))
    payload = _bytes(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [about],
            "predicateType": SIGN_PREDICATE,
            "predicate": {},
        }
    )
    return bundle_of(payload, key.sign(_pre_authentication_encoding(payload)), key.public.hint)


def bundle_of(payload: bytes, signature: bytes, hint: str) -> bytes:
    """Return the bundle that carries an in-toto statement and its signature."""
    return _bytes(
        {
            "mediaType": media_types.BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": {
                "payload": strict_base64.encode(payload),
                "payloadType": media_types.IN_TOTO,
                "signatures": [{"sig": strict_base64.encode(signature)}],
            },
        }
    )


def _pre_authentication_encoding(payload: bytes) -> bytes:
    """Return what DSSE signs: type and payload, each with its length before it."""
    kind = media_types.IN_TOTO.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _hint(material: Mapping[str, Any]) -> str:
    if "publicKey" not in material:
        raise unreadable(
            "bundle.verificationMaterial.publicKey: missing; signatures with a certificate (keyless) need a network "
            "to be checked and are not supported, sign with a key"
        )
    hint = object_at(material["publicKey"], "bundle.verificationMaterial.publicKey").get("hint", "")
    if not isinstance(hint, str) or len(hint) > MAX_HINT:
        raise unreadable("bundle.verificationMaterial.publicKey.hint: expected a short string")
    return hint


def _base64(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise unreadable(f"{where}: expected base64")
    try:
        return strict_base64.decode(value)
    except ValueError as error:
        raise unreadable(f"{where}: {error}") from None


def _signature(value: Any, where: str) -> bytes:
    signature = _base64(value, where)
    if not 0 < len(signature) <= MAX_SIGNATURE:
        raise unreadable(f"{where}: is {len(signature)} bytes long; expected 1 to {MAX_SIGNATURE}")
    return signature


def _bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
