"""JSON from strangers: one document, one meaning, bounded work.

Promises: what is accepted is UTF-8 without a byte-order mark, has no duplicate key, nothing after the
document, no NaN or Infinity, no lone surrogate, and stays within the caps. Two parsers that disagree about
a document are how a signed document comes to mean something else to its reader (RFC 8259 §4 leaves
duplicate keys open); here there is one answer or none. Leaves to others: what the members mean.
"""

import json
from collections.abc import Sequence
from typing import Any

MAX_DEPTH = 32
"""Deepest nesting of objects and arrays."""
MAX_MEMBERS = 1 << 18
"""Most objects, arrays, members and elements together, counted by their punctuation before anything is
built."""


class NotStrictJson(ValueError):
    """The bytes are not such a document; the message says what and where, and needs a subject before it."""


def parse(data: bytes, *, max_bytes: int) -> Any:
    """Return the document as Python values.

    Args:
        data: the bytes as they were received.
        max_bytes: longest document.

    Raises:
        NotStrictJson: it breaks one of the promises above.
    """
    if len(data) > max_bytes:
        raise NotStrictJson(f"is {len(data)} bytes long; at most {max_bytes} are read")
    if data.count(b",") + data.count(b"{") + data.count(b"[") > MAX_MEMBERS:
        raise NotStrictJson(f"has more than {MAX_MEMBERS} members")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotStrictJson(f"is not UTF-8 at byte {error.start}") from None
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except NotStrictJson:
        raise
    except json.JSONDecodeError as error:
        raise NotStrictJson(f"is not JSON at character {error.pos}: {error.msg}") from None
    except ValueError:
        raise NotStrictJson("has a number with too many digits") from None
    except RecursionError:
        raise NotStrictJson(f"is nested deeper than {MAX_DEPTH}") from None
    _walk(document)
    return document


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise NotStrictJson(f"has the key {twice[:80]!r} twice in one object")
    return members


def _constant(text: str) -> None:
    raise NotStrictJson(f"holds {text}, which is not JSON")


def _walk(document: Any) -> None:
    """Check depth and strings without recursion."""
    pending = [(document, 0)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, str):
            _text(value)
        elif isinstance(value, (dict, list)):
            if depth >= MAX_DEPTH:
                raise NotStrictJson(f"is nested deeper than {MAX_DEPTH}")
            if isinstance(value, dict):
                for key in value:
                    _text(key)
            pending.extend(
                (child, depth + 1) for child in (value.values() if isinstance(value, dict) else value)
            )


def _text(value: str) -> None:
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotStrictJson("holds half of a surrogate pair, which no text may") from None
