"""Prints what a command found: text for people or one JSON document for programs, never a mixture.

Promises: with ``--output json`` standard output holds exactly one JSON document, also when the command fails;
progress, notes and questions go to standard error.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgemodel.errors import EdgeModelError

if TYPE_CHECKING:
    from edgemodel.artifact.manifest import Release


def document(value: Mapping[str, Any]) -> None:
    """Print a result as JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values in two columns; what is None or empty is left out."""
    shown = [(name, str(value)) for name, value in pairs if value is not None and value != ""]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name:<{width}}  {clean(value)}")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under heads, columns aligned."""
    cells = [list(heads), *([clean(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    for row in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def note(text: str) -> None:
    """Say something that is no part of the result."""
    print(clean(text), file=sys.stderr)


def failure(error: EdgeModelError, *, as_json: bool) -> None:
    """Say what went wrong."""
    kind = type(error).__name__
    if as_json:
        document({"error": {"type": kind, "reason": error.reason, "message": error.message}})
    else:
        note(f"edgemodel: {kind} ({error.reason}): {error.message}")


def moment(time: datetime | None) -> str | None:
    """Return a time as RFC 3339; None when there is none."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time is not None else None


def release(facts: "Release") -> dict[str, Any]:
    """Return release facts as JSON values."""
    return {
        "name": facts.name,
        "version": facts.version,
        "sequence": facts.sequence,
        "expires": moment(facts.expires),
        "created": moment(facts.created),
    }


def size(count: int) -> str:
    """Return bytes for people: ``105 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the loop returns")


def clean(text: str) -> str:
    """Take control characters out: names and annotations come from strangers, and a terminal obeys them."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
