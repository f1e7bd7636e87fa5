"""What a document must not say when it is sent by server-side apply."""

from collections.abc import Mapping
from typing import Any


def without_empty(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without what is empty in it, lists and mappings; entries of lists stay as they are.

    The API server takes out, one by one, what the manager applied before and does not apply now. If nothing is left of a
    mapping that is mentioned, it puts null in its place (structured-merge-diff, ``typed/remove.go``), and then refuses the
    object, since none of ours may be null. What is not mentioned goes whole.
    """
    kept = {
        name: without_empty(value) if isinstance(value, Mapping) else value
        for name, value in document.items()
    }
    return {name: value for name, value in kept.items() if value not in ([], {})}
