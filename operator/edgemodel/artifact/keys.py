"""Signing keys: ECDSA on P-256, P-384 and P-521, and RSA with PKCS#1 v1.5: what cosign makes with ``--key``.

Promises: one key has one ``key_id`` however its PEM is written, so that counting distinct keys cannot be tricked;
nothing here prints a private key. Leaves to others: which keys are trusted (``policy``) and what is signed
(``signature``). Not read: Ed25519 (cosign signs with Ed25519ph, which ``cryptography`` lacks) and certificates.
"""

import functools
import re
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from edgemodel.artifact import cosign_key, strict_base64
from edgemodel.artifact.digest import Digest
from edgemodel.errors import Stalled

MAX_PEM = 1 << 16
"""Longest PEM in bytes."""
MIN_RSA, MAX_RSA = 2048, 8192
"""Bits of an RSA key: fewer are broken, more only cost time."""

_HASHES: dict[str, tuple[hashes.HashAlgorithm, ...]] = {
    # The first is what signers use today; older cosign took SHA-256 on every curve (sigstore/cosign #2467).
    "secp256r1": (hashes.SHA256(),),
    "secp384r1": (hashes.SHA384(), hashes.SHA256()),
    "secp521r1": (hashes.SHA512(), hashes.SHA256()),
}
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with; two are equal when they are the same key."""

    pem: str
    """PEM of the SubjectPublicKeyInfo, written anew: equal keys have equal text."""
    _key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey = field(repr=False, compare=False)

    @classmethod
    def from_pem(cls, text: str | bytes) -> Self:
        """Read ``-----BEGIN PUBLIC KEY-----``.

        Raises:
            Stalled: ``InvalidSpec``; the message says what was found instead and never quotes it.
        """
        pem = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        blocks = _BLOCK.findall(pem)
        if len(pem) > MAX_PEM:
            raise _bad_public(f"is {len(pem)} characters long; at most {MAX_PEM} are read")
        if any(kind.endswith("PRIVATE KEY") for kind in blocks):
            raise _bad_public(
                "is a private key: remove it from here, and replace it, for others may have read it"
            )
        if blocks != ["PUBLIC KEY"]:
            found = " and ".join(blocks[:3]) if blocks else "no PEM block"
            raise _bad_public(f"holds {found}")
        try:
            key = serialization.load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise _bad_public("cannot be read: it is damaged, or of a kind that is not supported") from None
        return cls.of(key)

    @classmethod
    def of(cls, key: object) -> Self:
        """Take a key of ``cryptography``; raises as ``from_pem``."""
        if isinstance(key, ec.EllipticCurvePublicKey):
            if key.curve.name not in _HASHES:
                raise _bad_public(f"is on the curve {key.curve.name}; expected P-256, P-384 or P-521")
        elif isinstance(key, rsa.RSAPublicKey):
            if not MIN_RSA <= key.key_size <= MAX_RSA:
                raise _bad_public(f"is RSA of {key.key_size} bits; expected {MIN_RSA} to {MAX_RSA}")
        else:
            raise _bad_public(f"is {type(key).__name__.removesuffix('PublicKey')}; expected ECDSA or RSA")
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(pem.decode("ascii"), key)

    @functools.cached_property
    def key_id(self) -> str:
        """Hex sha256 of the DER SubjectPublicKeyInfo."""
        der = self._key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return Digest.of(der).hex

    @property
    def hint(self) -> str:
        """What cosign writes into a bundle to say which key it was: base64 of the same sha256."""
        return strict_base64.encode(bytes.fromhex(self.key_id))

    @functools.cached_property
    def hints(self) -> frozenset[str]:
        """All texts by which signers are known to point at this key; model-signing hashes the PEM."""
        return frozenset({self.hint, self.key_id, Digest.of(self.pem.encode()).hex})

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Tell whether this key's owner signed exactly ``data``."""
        if isinstance(self._key, rsa.RSAPublicKey):
            return self._verify_rsa(self._key, signature, data)
        return any(
            self._verify_ecdsa(self._key, signature, data, algorithm)
            for algorithm in _HASHES[self._key.curve.name]
        )

    @staticmethod
    def _verify_rsa(key: rsa.RSAPublicKey, signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    @staticmethod
    def _verify_ecdsa(
        key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes, algorithm: hashes.HashAlgorithm
    ) -> bool:
        try:
            key.verify(signature, data, ec.ECDSA(algorithm))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A key that signs."""

    _key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Make a new ECDSA P-256 key, the kind that ``cosign generate-key-pair`` makes."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, pem: bytes, password: bytes | None = None) -> Self:
        """Read a private key: PKCS#8, plain or encrypted, SEC1, PKCS#1, or cosign's own encrypted file.

        Args:
            pem: the file's content.
            password: of an encrypted file; ignored for a plain one.

        Raises:
            Stalled: ``InvalidSpec``; the message never quotes the file or the password.
        """
        if len(pem) > MAX_PEM:
            raise _bad_private(f"is {len(pem)} bytes long; at most {MAX_PEM} are read")
        encrypted = b"ENCRYPTED" in pem
        if encrypted and password is None:
            raise _bad_private("is encrypted and no password was given")
        try:
            if cosign_key.is_cosign_key(pem):
                key = serialization.load_der_private_key(cosign_key.decrypt(pem, password or b""), None)
            else:
                key = serialization.load_pem_private_key(pem, (password or None) if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The library's own messages can hold bytes of the file.
            what = (
                "the password is wrong, or the file is damaged"
                if encrypted
                else "expected the PEM of a private key"
            )
            raise _bad_private(f"cannot be read: {what}") from None
        if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
            raise _bad_private(f"is {type(key).__name__.removesuffix('PrivateKey')}; expected ECDSA or RSA")
        PublicKey.of(key.public_key())
        return cls(key)

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey.of(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Sign ``data`` as cosign does with such a key: ECDSA in DER with the curve's hash, or RSA PKCS#1 v1.5."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(data, ec.ECDSA(_HASHES[self._key.curve.name][0]))

    def export_cosign(self, password: bytes) -> bytes:
        """Return cosign's encrypted key file: ``cosign sign --key`` takes it too, and guessing its password is costly.

        Raises:
            Stalled: ``InvalidSpec``; the password is empty.
        """
        _check_password(password)
        der = self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cosign_key.encrypt(der, password)

    def export_encrypted(self, password: bytes) -> bytes:
        """Return PKCS#8 PEM, encrypted: openssl takes it too.

        Its PBKDF2 of 2048 rounds slows a guesser down far less than ``export_cosign`` does: use a long password.

        Raises:
            Stalled: ``InvalidSpec``; the password is empty.
        """
        _check_password(password)
        return self._export(serialization.BestAvailableEncryption(password))

    def export_plain(self) -> bytes:
        """Return PKCS#8 PEM in the clear: for machines that keep the whole file secret, such as a CI's secret store."""
        return self._export(serialization.NoEncryption())

    def _export(self, encryption: serialization.KeySerializationEncryption) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )


def _check_password(password: bytes) -> None:
    if not password:
        raise _bad_private("needs a password that is not empty to be written encrypted")


def _bad_public(what: str) -> Stalled:
    return Stalled(
        "InvalidSpec", f"public key {what}; expected one -----BEGIN PUBLIC KEY----- block of ECDSA or RSA"
    )


def _bad_private(what: str) -> Stalled:
    return Stalled("InvalidSpec", f"private key {what}")
