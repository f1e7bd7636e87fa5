"""Turns a pydantic model into a structural OpenAPI v3 schema, the dialect of CustomResourceDefinitions.

Promises: no ``$ref``, no ``anyOf``, no ``title``; ``Optional`` fields are simply not required; free-form
objects keep unknown fields; defaults that the API server is to fill in are written out. A keyword that this
module doesn't know is an error, never dropped: a limit that vanished would be worse than a failed build.

What can't be said in pydantic (rules across fields, list keys) enters as ``Extras``, by class name.
Source of the dialect: "Specifying a structural schema" in Kubernetes' page on CustomResourceDefinitions.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

Schema = dict[str, Any]

_SIZES = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
_KEPT = ("type", "format", "enum", "pattern", *_SIZES)
_RENDERED = ("const", "description", "default", "items", "properties", "required", "additionalProperties")
_HANDLED = {*_KEPT, *_RENDERED, "title"}
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression that must hold, and what the user reads when it doesn't."""

    rule: str
    message: str
    field_path: str | None = None
    """Where the error points, relative to the object that carries the rule, such as ``.threshold``."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What one class has beyond its pydantic fields; inner keys are field names as on the wire."""

    rules: tuple[Rule, ...] = ()
    field_rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    list_keys: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """List of objects → the key, or keys, by which its items are merged and must be unique."""
    sets: frozenset[str] = frozenset()
    """Lists of scalars that hold each value once."""
    atomic: bool = False
    """The object is replaced as a whole, never merged (``x-kubernetes-map-type: atomic``)."""


def structural(model: type[BaseModel], extras: Mapping[str, Extras], *, defaults: bool) -> Schema:
    """Return the structural schema of ``model``.

    Args:
        model: a class whose every field is documented.
        extras: rules and list keys by class name, for ``model`` and all classes below it.
        defaults: write defaults: True for what users write, False for status, which we write whole.

    Raises:
        ValueError: a field is undocumented, or needs a keyword or a union that this dialect doesn't have.
    """
    source = model.model_json_schema(by_alias=True, mode="validation")
    classes = _classes_below(model)
    return _Builder(source.get("$defs", {}), classes, extras, defaults).object(source, model.__name__)


class _Builder:
    def __init__(
        self,
        definitions: Mapping[str, Schema],
        classes: Mapping[str, type[BaseModel]],
        extras: Mapping[str, Extras],
        defaults: bool,
    ) -> None:
        self._definitions = definitions
        self._classes = classes
        self._extras = extras
        self._defaults = defaults

    def object(self, source: Schema, name: str) -> Schema:
        extras = self._extras.get(name, Extras())
        model = self._classes[name]
        required = set(source.get("required", ()))
        properties = {}
        for wire, prop in source["properties"].items():
            properties[wire] = self._field(prop, wire, name, extras)
            default = self._default(model, wire, properties[wire], required=wire in required)
            if default is not None:
                properties[wire]["default"] = default
        result: Schema = {
            "type": "object",
            "description": prose(source["description"]),
            "properties": properties,
        }
        if required:
            result["required"] = [wire for wire in properties if wire in required]
        if extras.atomic:
            result["x-kubernetes-map-type"] = "atomic"
        if extras.rules:
            result["x-kubernetes-validations"] = rendered(extras.rules)
        return result

    def _field(self, source: Schema, wire: str, owner: str, extras: Extras) -> Schema:
        if not source.get("description") and "$ref" not in source:
            raise ValueError(f"{owner}.{wire} has no docstring: every field is explained to users")
        result = self._node(source, f"{owner}.{wire}")
        if source.get("description"):
            result = {
                "type": result["type"],
                "description": prose(source["description"]),
                **_without(result, "type", "description"),
            }
        if result["type"] == "array":
            if wire in extras.list_keys:
                keys = extras.list_keys[wire]
                result |= {
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": [keys] if isinstance(keys, str) else list(keys),
                }
            else:
                result["x-kubernetes-list-type"] = "set" if wire in extras.sets else "atomic"
        if wire in extras.field_rules:
            result["x-kubernetes-validations"] = rendered(extras.field_rules[wire])
        return result

    def _node(self, source: Schema, where: str) -> Schema:
        if "$ref" in source:
            name = source["$ref"].rsplit("/", 1)[-1]
            return self.object(self._definitions[name], name)
        if "anyOf" in source:
            branches = [branch for branch in source["anyOf"] if branch != {"type": "null"}]
            if len(branches) != 1:
                raise ValueError(
                    f"{where} is a union of {len(branches)} types: a structural schema allows one"
                )
            return self._node(branches[0], where)
        unknown = set(source) - _HANDLED
        if unknown or "type" not in source:
            what = ", ".join(sorted(unknown)) or "a value without a type"
            raise ValueError(f"{where}: a structural schema cannot express {what}")
        result = {key: source[key] for key in _KEPT if key in source}
        if "const" in source:
            result["enum"] = [source["const"]]
        if source["type"] == "integer":
            result["format"] = "int32" if source.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
        elif source["type"] == "array":
            result["items"] = self._node(source["items"], f"{where}[]")
        elif source["type"] == "object":
            values = source.get("additionalProperties", True)
            if values is True:
                result["x-kubernetes-preserve-unknown-fields"] = True
            else:
                result["additionalProperties"] = self._node(values, f"{where}{{}}")
        return result

    def _default(self, model: type[BaseModel], wire: str, schema: Schema, *, required: bool) -> Any:
        """Return what the API server is to fill in, or None.

        An object gets ``{}`` only when something below it has a default to be filled in: the API server looks
        for nested defaults in objects that exist, and an empty object for nothing is clutter.
        """
        if not self._defaults or required:
            return None
        info = next(info for name, info in model.model_fields.items() if (info.alias or name) == wire)
        value = info.get_default(call_default_factory=True, validated_data={})
        if value is PydanticUndefined or value is None:
            return None
        if isinstance(value, BaseModel):
            below = schema.get("properties", {})
            return (
                {}
                if not schema.get("required") and any("default" in prop for prop in below.values())
                else None
            )
        return None if value in ([], {}, "") else value


def rendered(rules: tuple[Rule, ...]) -> list[Schema]:
    """Return rules as ``x-kubernetes-validations`` holds them."""
    return [
        {"rule": rule.rule, "message": rule.message}
        | ({"fieldPath": rule.field_path} if rule.field_path else {})
        for rule in rules
    ]


def prose(text: str) -> str:
    """Return a docstring as one line a paragraph: readers wrap for themselves."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _without(schema: Schema, *keys: str) -> Schema:
    return {key: value for key, value in schema.items() if key not in keys}


def _classes_below(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return every model class that ``model`` reaches, by class name."""
    found: dict[str, type[BaseModel]] = {}
    todo: list[Any] = [model]
    while todo:
        one = todo.pop()
        if inspect.isclass(one) and issubclass(one, BaseModel):
            if one.__name__ not in found:
                found[one.__name__] = one
                todo += [info.annotation for info in one.model_fields.values()]
        else:
            todo += getattr(one, "__args__", ())
    return found
