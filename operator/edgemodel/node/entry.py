"""What this node is to hold, read from its EdgeNode's spec: entries in the order in which they are to be brought.

Promises: one entry that cannot be understood spoils no other; a policy that an entry names and that is missing or cannot be
read is a failure of that entry, never a policy less. Leaves to others: doing it (``arrival``).
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from edgemodel.api.edge_node import Role, WantedModel, Window
from edgemodel.api.meta import seconds
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.policy import Policy
from edgemodel.artifact.reference import Reference
from edgemodel.errors import EdgeModelError, Stalled

_ORDER: dict[Role, int] = {"Active": 0, "Candidate": 1, "LastGood": 2}


class Key(NamedTuple):
    """Names one entry."""

    namespace: str
    name: str
    digest: Digest

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}@{self.digest.short}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one model that the node is to hold."""

    key: Key
    image: str
    """The pinned reference, as written."""
    role: Role
    model_file: str | None = None
    documents: tuple[tuple[str, str | None], ...] = ()
    """Policies that govern it, as name and JSON text; None for one that spec.policies lacks."""
    sealed_pull_secrets: str | None = field(default=None, repr=False)
    window: Window | None = None
    recheck_seconds: float = 86400.0
    """How often its files are hashed again; 0 means never."""

    @property
    def digest(self) -> Digest:
        """The artifact's manifest."""
        return self.key.digest

    @property
    def priority(self) -> tuple[int, str, str, str]:
        """Sorts entries by who is waiting for them: pods that serve, pods that will, a way back."""
        return _ORDER[self.role], *self.key

    def reference(self) -> Reference:
        """Return where it is pulled from.

        Raises:
            Stalled: ``InvalidSpec``; it is no reference, or pins another digest.
        """
        try:
            reference = Reference.parse(self.image)
        except EdgeModelError as error:
            raise Stalled("InvalidSpec", f"image: {error.message}") from None
        if reference.digest != self.digest:
            raise Stalled(
                "InvalidSpec",
                f"image: expected a reference pinned to {self.digest}, found {self.image[:300]}",
            )
        return reference

    def policies(self) -> list[Policy]:
        """Return the policies that govern it.

        Raises:
            Stalled: ``InvalidSpec``; one is missing or cannot be read.
        """
        found = []
        for name, document in self.documents:
            if document is None:
                raise Stalled("InvalidSpec", f"policy {name} is named here, but spec.policies has none of it")
            found.append(_policy(document))
        return found

    def same_work(self, other: "Entry") -> bool:
        """Say whether what was begun for the one can go on for the other: only role, window or recheck differ."""
        return (
            replace(other, role=self.role, window=self.window, recheck_seconds=self.recheck_seconds) == self
        )


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """The whole of it."""

    entries: tuple[Entry, ...] = ()
    """By priority."""
    store_budget: int | None = None
    """Bytes; None when the operator says nothing."""
    rate_limit: int | None = None
    """Bytes a second."""
    problems: tuple[str, ...] = ()
    """Entries that were passed over, and why."""


@functools.lru_cache(maxsize=128)
def _policy(document: str) -> Policy:
    return Policy.from_json(document)


def read_spec(spec: object) -> NodeSpec:
    """Read ``EdgeNode.spec`` as the API server, or this node's disk, holds it.

    Raises:
        Stalled: ``InvalidSpec``; it is no spec at all.
    """
    if not isinstance(spec, Mapping):
        raise Stalled("InvalidSpec", f"EdgeNode.spec: expected an object, found {type(spec).__name__}")
    documents = {
        str(policy["name"]): policy["document"]
        for policy in _objects(spec, "policies")
        if isinstance(policy.get("document"), str) and "name" in policy
    }
    entries: dict[Key, Entry] = {}
    problems = []
    for number, item in enumerate(_objects(spec, "models")):
        try:
            wanted = WantedModel.model_validate(item)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            problems.append(f"spec.models[{number}].{where}: {first['msg']}")
            continue
        entry = _entry(wanted, documents)
        entries[entry.key] = entry
    return NodeSpec(
        tuple(sorted(entries.values(), key=lambda entry: entry.priority)),
        _whole(spec, "storeBudget"),
        _whole(spec, "rateLimit"),
        tuple(problems),
    )


def _objects(spec: Mapping[str, Any], member: str) -> list[Mapping[str, Any]]:
    found = spec.get(member) or []
    if not isinstance(found, list):
        raise Stalled("InvalidSpec", f"EdgeNode.spec.{member}: expected a list, found {type(found).__name__}")
    return [item for item in found if isinstance(item, Mapping)]


def _whole(spec: Mapping[str, Any], member: str) -> int | None:
    value = spec.get(member)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Stalled(
            "InvalidSpec", f"EdgeNode.spec.{member}: expected bytes, found {json.dumps(value)[:40]}"
        )
    return value


def _entry(wanted: WantedModel, documents: Mapping[str, str]) -> Entry:
    return Entry(
        Key(wanted.namespace, wanted.name, Digest(wanted.digest)),
        wanted.image,
        wanted.role,
        wanted.model_file,
        tuple((name, documents.get(name)) for name in sorted(set(wanted.policies))),
        wanted.sealed_pull_secrets,
        wanted.window,
        seconds(wanted.recheck_interval),
    )
