"""Pods as nobody should report them: no shape of a status may stop a pass."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgemodel.reconcile.pods import PodFacts, read_pod

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["True", "Ready", "fetch", "server", "Error"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["name", "state", "terminated", "waiting", "reason", "type"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional={"metadata": JSON, "status": JSON}))
def test_no_pod_however_odd_stops_a_pass(pod: dict[str, Any]) -> None:
    assert isinstance(read_pod(pod), PodFacts)


@given(JSON, JSON, JSON)
def test_no_status_however_odd_stops_a_pass(conditions: Any, fetch: Any, server: Any) -> None:
    status = {"conditions": conditions, "initContainerStatuses": fetch, "containerStatuses": server}
    assert isinstance(read_pod({"status": status}), PodFacts)
