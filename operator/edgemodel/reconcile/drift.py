"""Does a live object differ from the one we want, in any field that we set?

The API server adds defaults, other managers add fields, and both are theirs. Compared is only what we set: objects as
subsets, lists by the key that server-side apply merges them by, or whole where it does not merge; amounts by value, so that
``1000m`` is ``1``; nothing, ``null`` and empty are the same. A field that we once set and set no more shows in the
annotation ``edgemodel.io/applied``, the hash of the object as applied. So a pass over an unchanged world applies nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgemodel.reconcile.quantity import amount

_QUANTITIES = frozenset({"requests", "limits"})
"""Fields whose members are quantities."""
_QUANTITY = frozenset({"sizeLimit", "divisor"})
"""Fields that are quantities."""
_WHOLE = frozenset({"matchLabels", "nodeSelector"})
"""Maps that the API server keeps as one value: a key too many is a difference too."""
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "ports": "name",
    "volumeMounts": "mountPath",
    "ownerReferences": "uid",
}
"""Lists that server-side apply merges by a key, to which others may add."""


def differs(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Return whether ``desired`` must be applied to make ``live`` hold all that it says."""
    return not _object_holds(desired, live, whole=False, quantities=False)


def _object_holds(want: Mapping[str, Any], have: Any, *, whole: bool, quantities: bool) -> bool:
    if have is None:
        have = {}  # a map in which we set nothing need not be there
    if not isinstance(have, Mapping):
        return False
    if whole and {key for key, value in have.items() if not _empty(value)} - set(want):
        return False
    return all(_holds(key, value, have.get(key), quantity=quantities) for key, value in want.items())


def _holds(field: str, want: Any, have: Any, *, quantity: bool) -> bool:
    if field == "selector" and want == {}:
        return _empty(have)  # a Service that leads to no pods: one key would make it lead to some
    if _empty(want):
        return True  # sets nothing, so nothing can be missing
    if want == "":
        return have is None or have == ""
    if isinstance(want, Mapping):
        # A Service's selector is one value; a Deployment's is a LabelSelector, whose matchLabels is.
        plain_selector = field == "selector" and all(isinstance(value, str) for value in want.values())
        return _object_holds(
            want, have, whole=field in _WHOLE or plain_selector, quantities=field in _QUANTITIES
        )
    if isinstance(want, Sequence) and not isinstance(want, str):
        return _list_holds(field, want, have)
    if quantity or field in _QUANTITY:
        wanted = amount(want)
        if wanted is not None:
            return wanted == amount(have)
    return isinstance(want, bool) == isinstance(have, bool) and bool(want == have)


def _list_holds(field: str, want: Sequence[Any], have: Any) -> bool:
    if not isinstance(have, Sequence) or isinstance(have, str):
        return False
    key = _KEYS.get(field)
    if key is not None and all(isinstance(item, Mapping) and key in item for item in want):
        known = {item.get(key): item for item in have if isinstance(item, Mapping)}
        return all(_holds("", item, known.get(item[key]), quantity=False) for item in want)
    return len(want) == len(have) and all(
        _holds("", ours, theirs, quantity=False) for ours, theirs in zip(want, have, strict=True)
    )


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping | list | tuple) and not value)
