"""Base64 with one spelling for each value: RFC 4648 §4 alphabet, padded, unused bits zero (§3.5).

Python's own decoder, like most, drops the unused bits of the last letter: several texts then stand for one value,
and a flipped bit goes unnoticed. This is also the only form that Go's encoder, and so cosign, writes.
"""

import base64
import binascii


def decode(text: str) -> bytes:
    """Return the bytes.

    Raises:
        ValueError: ``text`` is not the one base64 text of any value; the message quotes nothing of it.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError(f"is not base64: {error}") from None
    if encode(data) != text:
        raise ValueError("is not base64 as RFC 4648 §3.5 wants it: padding or unused bits are wrong")
    return data


def encode(data: bytes) -> str:
    """Return the base64 text of ``data``."""
    return base64.b64encode(data).decode("ascii")
