"""Whatever an object says: defaults that others add and empties that the API server drops are no drift."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgemodel.reconcile.drift import differs
from tests.unit.reconcile.api_server import without_empty

KEYS = st.sampled_from(["a", "b", "env", "ports", "selector", "requests"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab1m", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.dictionaries(st.sampled_from("xyz"), VALUES))
def test_defaults_and_dropped_empties_are_never_a_difference(
    desired: dict[str, Any], defaults: dict[str, Any]
) -> None:
    assert not differs(desired, {**defaults, **desired})
    stored = without_empty(_lists_filled(desired))
    assert not differs(_lists_filled(desired), {**defaults, **stored})


def _lists_filled(value: Any) -> Any:
    """Leave empties out of lists, where the API server has no way to drop them."""
    if isinstance(value, dict):
        return {key: _lists_filled(item) for key, item in value.items()}
    if isinstance(value, list):
        filled = [without_empty(_lists_filled(item)) for item in value]
        return [item for item in filled if item not in ("", {}, [], None)]
    return value
