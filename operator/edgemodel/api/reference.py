"""The reference page of the API, in Markdown, made from the same definitions that the cluster gets.

One section a kind: what ``kubectl get`` shows, every field with its type, default and limits, and the rules
that the API server enforces. ``hack/generate`` writes it to ``docs/reference/api.md``.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from edgemodel.api.crd import KINDS, Kind, schema
from edgemodel.api.meta import API_VERSION

_LIMITS = {
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "minLength": "{} or more characters",
    "maxLength": "at most {} characters",
    "minItems": "{} or more items",
    "maxItems": "at most {} items",
    "pattern": "matches `{}`",
}


def page(kinds: Iterable[Kind] = KINDS) -> str:
    """Return the whole page, ending in a newline."""
    lines = [
        f"# API reference: `{API_VERSION}`",
        "",
        "A field that is not *required* may be left out. A keyed list holds each key once.",
        "",
    ]
    for kind in kinds:
        lines += _kind(kind)
    return "\n".join(lines).rstrip() + "\n"


def _kind(kind: Kind) -> Iterator[str]:
    whole = schema(kind)
    scope = "Namespaced" if kind.namespaced else "Cluster-scoped"
    yield from (f"## {kind.name}", "", whole["description"], "")
    explained = f"spec/{kind.singular}.md"
    yield f"{scope}; `kubectl get {kind.short}`. Explained in [{explained}](../{explained})."
    yield from ("", "| column | shows |", "|---|---|")
    for column in kind.columns:
        yield f"| {column.name}{' (`-o wide`)' if column.wide else ''} | {column.description} |"
    yield ""
    for part in ("spec", "status"):
        yield from (
            f"### {kind.name} {part}",
            "",
            "| field | type | default | meaning |",
            "|---|---|---|---|",
        )
        yield from _rows(whole["properties"][part], part)
        yield ""
    rules = list(_rules(whole, ""))
    if rules:
        yield from (
            f"### {kind.name} rules",
            "",
            "The API server refuses an object that breaks one of these.",
            "",
        )
        yield from ("| where | rule |", "|---|---|", *rules, "")


def _rows(node: dict[str, Any], path: str) -> Iterator[str]:
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}"
        required = name in node.get("required", ())
        yield f"| `{here}` | {_type(child)} | {_default(child, required=required)} | {_meaning(child)} |"
        yield from _rows(child, here)
        if child["type"] == "array":
            yield from _rows(child["items"], f"{here}[]")


def _type(node: dict[str, Any]) -> str:
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if node["type"] == "object" and "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    return "time" if node.get("format") == "date-time" else str(node["type"])


def _default(node: dict[str, Any], *, required: bool) -> str:
    if required:
        return "*required*"
    if "default" not in node:
        return ""
    value = node["default"]
    if isinstance(value, list):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(node: dict[str, Any]) -> str:
    limits = [text.format(_cell(str(node[key]))) for key, text in _LIMITS.items() if key in node]
    if node["type"] == "array":
        if "x-kubernetes-list-map-keys" in node:
            keys = ", ".join(f"`{key}`" for key in node["x-kubernetes-list-map-keys"])
            limits.append(f"keyed by {keys}")
        elif node["x-kubernetes-list-type"] == "set":
            limits.append("each value once")
    text = _cell(node["description"].replace("\n\n", "<br>"))
    return f"{text} ({'; '.join(limits)})" if limits else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _rules(node: dict[str, Any], path: str) -> Iterator[str]:
    for rule in node.get("x-kubernetes-validations", ()):
        where = f"{path}{rule.get('fieldPath', '')}".lstrip(".")
        yield f"| `{where}` | {rule['message']} |"
    for name, child in node.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}")
    if node.get("type") == "array":
        yield from _rules(node["items"], f"{path}[]")
