"""Seals pull secrets to one node's agent, so that they may lie in an object that others can read.

A sealed text is opened only with the private key of the node it was sealed to, and only in the context (node, namespace
and model) it was sealed for: copied into another node's or another model's entry it stays shut. Every sealing draws a
key pair of its own, so equal secrets never look alike, and content is padded to whole blocks, so that its length tells
little. Promises: nothing comes out unless all of it is genuine; no error quotes any of it.

Does not prove who sealed it: whoever may write an EdgeNode's spec may put credentials there. They are used for nothing
but to log in at registries, and what comes from there is judged by signatures.

Format, base64: version (1 byte), the sealer's X25519 public key (32), ChaCha20-Poly1305 of length (4), content, zeros.
Key: HKDF-SHA256 over the shared secret, salt both public keys, which is ECIES; used for one message, hence the nonce of
zeros. Sources: RFC 7748, RFC 5869, RFC 8439; the shape is that of RFC 9180 (HPKE) in base mode.
"""

import json
import struct
from collections.abc import Sequence
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edgemodel.artifact import strict_base64
from edgemodel.errors import Refused

MAX_PLAINTEXT = 128 * 1024
"""Bytes; what comes of it fits into ``sealedPullSecrets``."""
_VERSION = b"\x01"
_KEY_BYTES = 32
_TAG_BYTES = 16
_BLOCK = 256
_NONCE = bytes(12)
_INFO = b"edgemodel.io sealing v1"
_REASON = "AuthenticationFailed"


class SealingKey:
    """An agent's private key; shows nothing of itself when printed."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self._public = private.public_key().public_bytes_raw()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read a key that ``to_bytes`` wrote.

        Raises:
            Refused: ``AuthenticationFailed``; it has not the length of a key.
        """
        if len(raw) != _KEY_BYTES:
            raise Refused(_REASON, f"a sealing key has {_KEY_BYTES} bytes, found {len(raw)}")
        return cls(X25519PrivateKey.from_private_bytes(raw))

    def to_bytes(self) -> bytes:
        """Return the private key, to be kept where nobody else reads it."""
        return self._private.private_bytes_raw()

    @property
    def public(self) -> str:
        """The public key in base64: what ``seal`` wants."""
        return strict_base64.encode(self._public)

    def open(self, sealed: str, context: str) -> bytes:
        """Return what was sealed to this key for this context.

        Raises:
            Refused: ``AuthenticationFailed``; it is not base64, cut short, altered, or meant for another key or context.
        """
        try:
            raw = strict_base64.decode(sealed)
        except ValueError as error:
            raise Refused(_REASON, f"sealed pull secrets: the text {error}") from None
        head = 1 + _KEY_BYTES
        if len(raw) < head + _TAG_BYTES + 4:
            raise Refused(_REASON, f"sealed pull secrets: cut short at {len(raw)} bytes")
        if raw[:1] != _VERSION:
            raise Refused(_REASON, f"sealed pull secrets: expected version 1, found {raw[0]}")
        key = _shared(self._private, raw[1:head], raw[1:head] + self._public)
        try:
            padded = ChaCha20Poly1305(key).decrypt(_NONCE, raw[head:], _VERSION + context.encode())
        except InvalidTag:
            raise Refused(
                _REASON,
                f"sealed pull secrets: not meant for this node's key and {context}, or altered; "
                "the operator seals them again once it sees the node's key",
            ) from None
        (length,) = struct.unpack_from(">I", padded)
        if length > len(padded) - 4:
            raise Refused(_REASON, f"sealed pull secrets: say {length} bytes and hold {len(padded) - 4}")
        return padded[4 : 4 + length]


def new_key() -> SealingKey:
    """Draw a key."""
    return SealingKey(X25519PrivateKey.generate())


def seal(public: str, plaintext: bytes, context: str) -> str:
    """Seal to the holder of a public key.

    Args:
        public: ``SealingKey.public`` of who shall open it.
        plaintext: at most ``MAX_PLAINTEXT`` bytes.
        context: must be given again to open it; see ``pull_secret_context``.

    Raises:
        Refused: ``AuthenticationFailed``; ``public`` is no key, or there is too much to seal.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise Refused(
            _REASON, f"expected at most {MAX_PLAINTEXT} bytes of pull secrets, found {len(plaintext)}"
        )
    try:
        recipient = strict_base64.decode(public)
    except ValueError as error:
        raise Refused(_REASON, f"the node's sealing key {error}") from None
    if len(recipient) != _KEY_BYTES:
        raise Refused(_REASON, f"the node's sealing key has {len(recipient)} bytes, expected {_KEY_BYTES}")
    ephemeral = X25519PrivateKey.generate()
    sender = ephemeral.public_key().public_bytes_raw()
    key = _shared(ephemeral, recipient, sender + recipient)
    content = struct.pack(">I", len(plaintext)) + plaintext
    content += bytes(-len(content) % _BLOCK)
    box = ChaCha20Poly1305(key).encrypt(_NONCE, content, _VERSION + context.encode())
    return strict_base64.encode(_VERSION + sender + box)


def pull_secret_context(node: str, namespace: str, name: str) -> str:
    """Return the context of one EdgeModel's pull secrets on one node; none of the three can hold a slash."""
    return f"{node}/{namespace}/{name}"


def pack_documents(documents: Sequence[bytes]) -> bytes:
    """Return the plaintext that several ``.dockerconfigjson`` documents make: a JSON list of base64."""
    return json.dumps([strict_base64.encode(one) for one in documents], separators=(",", ":")).encode()


def unpack_documents(plaintext: bytes) -> tuple[bytes, ...]:
    """Return the documents of an opened text.

    Raises:
        Refused: ``AuthenticationFailed``; it is not such a list. Nothing of it is quoted.
    """
    try:
        listed = json.loads(plaintext)
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            return tuple(strict_base64.decode(one) for one in listed)
    except (ValueError, RecursionError):
        pass
    raise Refused(_REASON, "sealed pull secrets: expected a JSON list of base64 texts")


def _shared(private: X25519PrivateKey, peer: bytes, salt: bytes) -> bytes:
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        # A point of low order: the "secret" would be one that everybody knows (RFC 7748 §6.1).
        raise Refused(_REASON, "the other side's X25519 key is not one a key pair can have") from None
    return HKDF(SHA256(), length=32, salt=salt, info=_INFO).derive(secret)
