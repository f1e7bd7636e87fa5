"""NaCl's secretbox (XSalsa20-Poly1305): what cosign seals its private key files with.

``cryptography`` has Poly1305 and no Salsa20. The boxes here are a few hundred bytes, once per command, so the
cipher is written out below rather than taken from one more compiled dependency (PyNaCl is 1.4 MB).
Promises: nothing comes out unless the tag is right. Not for anything large.

Source: D. J. Bernstein, "Cryptography in NaCl" (2009), §§ 7–9; "Extending the Salsa20 nonce" (2011).
"""

import struct

from cryptography.hazmat.primitives.poly1305 import Poly1305

KEY_BYTES = 32
NONCE_BYTES = 24
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_COLUMNS = ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11))
_ROWS = ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14))


def open_box(box: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return what ``box`` (tag and ciphertext) holds.

    Raises:
        cryptography.exceptions.InvalidSignature: the key is wrong or the box was altered.
        ValueError: key or nonce has the wrong length.
    """
    tag, ciphertext = box[:16], box[16:]
    stream = _stream(len(ciphertext) + 32, nonce, key)
    Poly1305.verify_tag(stream[:32], ciphertext, tag)
    return _xored(ciphertext, stream[32:])


def seal_box(content: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return the box that holds ``content``; a nonce must never be used twice with one key.

    Raises:
        ValueError: key or nonce has the wrong length.
    """
    stream = _stream(len(content) + 32, nonce, key)
    ciphertext = _xored(content, stream[32:])
    return Poly1305.generate_tag(stream[:32], ciphertext) + ciphertext


def _stream(length: int, nonce: bytes, key: bytes) -> bytes:
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"expected a key of {KEY_BYTES} and a nonce of {NONCE_BYTES} bytes")
    subkey = _hsalsa20(key, nonce[:16])
    return b"".join(_salsa20_block(subkey, nonce[16:], i) for i in range((length + 63) // 64))


def _xored(data: bytes, stream: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


def _rotated(value: int, bits: int) -> int:
    value &= 0xFFFFFFFF
    return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF


def _twenty_rounds(state: list[int]) -> list[int]:
    x = list(state)
    for a, b, c, d in (_COLUMNS + _ROWS) * 10:
        x[b] ^= _rotated(x[a] + x[d], 7)
        x[c] ^= _rotated(x[b] + x[a], 9)
        x[d] ^= _rotated(x[c] + x[b], 13)
        x[a] ^= _rotated(x[d] + x[c], 18)
    return x


def _state(key: bytes, block: bytes) -> list[int]:
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", block)
    return [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]


def _salsa20_block(key: bytes, nonce: bytes, counter: int) -> bytes:
    state = _state(key, nonce + struct.pack("<Q", counter))
    return struct.pack(
        "<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, _twenty_rounds(state), strict=True))
    )


def _hsalsa20(key: bytes, block: bytes) -> bytes:
    x = _twenty_rounds(_state(key, block))
    return struct.pack("<8I", x[0], x[5], x[10], x[15], *x[6:10])
