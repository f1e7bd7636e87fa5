"""The tiers: what each may take, and how they are shared out when several workers run (``make test``).

Unit tests get two seconds each; ten where they run beside a cluster that starts up. The end-to-end tests share one
cluster and the control-plane tests another, so each of the two goes to a worker as a whole; both mostly wait, and side
by side they take half the time. What clients notice under load shows only on a machine that does nothing else: those
tests are marked ``alone``.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.turns import turn

_OWN_CLUSTER = (
    "test_cluster.py",
    "test_cluster_nodes.py",
    "test_edge_nodes.py",
    "test_interop.py",
    "test_rollouts.py",
)
UNIT_SECONDS = 10 if "PYTEST_XDIST_WORKER" in os.environ else 2


def tier(path: str) -> str:
    """Return the tier of a test file, ``tests/<tier>/…``; what has clusters of its own goes with the shorter of the two."""
    name = Path(path)
    return "control_plane" if name.name in _OWN_CLUSTER else name.parts[1]


def share(path: str) -> str:
    """Return what goes to a worker as a whole: a tier that shares a cluster, or else a file."""
    return found if (found := tier(path)) in ("control_plane", "e2e") else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give unit tests their time limit; what needs a cluster comes first, as nothing may wait for it at the end."""
    items.sort(key=lambda item: tier(item.nodeid.split("::")[0]) not in ("control_plane", "e2e"))
    for item in items:
        own = any(map(item.get_closest_marker, ("timeout", "process")))
        if tier(item.nodeid.split("::")[0]) == "unit" and not own:
            item.add_marker(pytest.mark.timeout(UNIT_SECONDS))


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Wait for the test's turn, before its time limit begins to count."""
    if _is_alone(item):
        return (yield)
    with turn(alone=False):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Others may go on while a cluster starts for a test that is to be alone."""
    with turn(alone=False) if _is_alone(item) else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Have nothing run beside a test that is to be alone."""
    with turn(alone=True) if _is_alone(item) else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Others may go on while its cluster stops."""
    with turn(alone=False) if _is_alone(item) else nullcontext():
        return (yield)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out what shares a cluster as a whole, then files, in the order in which they are collected."""
    from xdist.scheduler import LoadScopeScheduling

    class TierScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return share(nodeid.split("::", maxsplit=1)[0])

    return TierScheduling(config, log)
