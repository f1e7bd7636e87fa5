"""cosign's encrypted private key files: ``ENCRYPTED SIGSTORE PRIVATE KEY`` and the older ``ENCRYPTED COSIGN …``.

Promises: the work that a file can ask for is bounded before it is done; no message holds a piece of key or password.

Format: sigstore/cosign pkg/cosign/keys.go over secure-systems-lab/go-securesystemslib encrypted/encrypted.go. PEM of
a JSON document; scrypt makes the key of a NaCl secretbox that holds the PKCS#8 DER.
"""

import json
import re
import secrets
import textwrap
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from edgemodel.artifact import secretbox, strict_base64, strict_json
from edgemodel.errors import Stalled

_PEM = re.compile(
    rb"-----BEGIN ENCRYPTED (SIGSTORE|COSIGN) PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+)-----END ENCRYPTED \1 PRIVATE KEY-----"
)
_MAX_MEMORY = 1 << 28
"""Most bytes that scrypt may be told to use; cosign's own files ask for 64 MiB."""
_MAX_BYTES = 1 << 16
_COST = 1 << 16
"""scrypt's N in files that are written: cosign's own choice, 64 MiB and a third of a second."""


def is_cosign_key(pem: bytes) -> bool:
    """Tell whether ``pem`` holds such a key."""
    return (
        b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY" in pem
        or b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY" in pem
    )


def decrypt(pem: bytes, password: bytes) -> bytes:
    """Return the PKCS#8 DER.

    Raises:
        Stalled: ``InvalidSpec``; the password is wrong or the file is damaged.
    """
    match = _PEM.search(pem[:_MAX_BYTES])
    if match is None:
        raise _damaged("expected one complete PEM block")
    try:
        sealed = strict_base64.decode(b"".join(match[2].split()).decode("ascii"))
        document = strict_json.parse(sealed, max_bytes=_MAX_BYTES)
        kdf, cipher = document["kdf"], document["cipher"]
        if kdf["name"] != "scrypt" or cipher["name"] != "nacl/secretbox":
            raise _damaged("expected scrypt and nacl/secretbox, found another cipher")
        cost, block, lanes = (_number(kdf["params"], name) for name in ("N", "r", "p"))
        salt = strict_base64.decode(kdf["salt"])
        nonce = strict_base64.decode(cipher["nonce"])
        box = strict_base64.decode(document["ciphertext"])
    except (KeyError, TypeError, ValueError):
        raise _damaged("the document in it is not what cosign writes") from None
    if cost < 2 or cost & (cost - 1) or 128 * cost * block > _MAX_MEMORY or lanes > 16:
        raise _damaged(f"its scrypt cost N={cost}, r={block}, p={lanes} is not acceptable")
    key = Scrypt(salt=salt, length=secretbox.KEY_BYTES, n=cost, r=block, p=lanes).derive(password)
    try:
        return secretbox.open_box(box, nonce, key)
    except InvalidSignature:
        raise Stalled("InvalidSpec", "private key: the password is wrong, or the file was altered") from None
    except ValueError:
        raise _damaged("its nonce has the wrong length") from None


def encrypt(der: bytes, password: bytes) -> bytes:
    """Return the PEM of a new key file that holds the PKCS#8 ``der``, as ``cosign generate-key-pair`` writes it."""
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(secretbox.NONCE_BYTES)
    key = Scrypt(salt=salt, length=secretbox.KEY_BYTES, n=_COST, r=8, p=1).derive(password)
    document = {
        "kdf": {"name": "scrypt", "params": {"N": _COST, "r": 8, "p": 1}, "salt": strict_base64.encode(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": strict_base64.encode(nonce)},
        "ciphertext": strict_base64.encode(secretbox.seal_box(der, nonce, key)),
    }
    body = textwrap.fill(strict_base64.encode(json.dumps(document, separators=(",", ":")).encode()), 64)
    kind = "ENCRYPTED SIGSTORE PRIVATE KEY"
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n".encode()


def _number(members: dict[str, Any], name: str) -> int:
    value = members[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TypeError
    return value


def _damaged(what: str) -> Stalled:
    return Stalled("InvalidSpec", f"private key: this cosign key file cannot be read: {what}")
