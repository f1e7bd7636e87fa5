"""The tiers: what each may take, and how they are shared out when several workers run (``make test``).

Unit tests get two seconds each; ten where they run beside a cluster that starts up. The end-to-end tests share one
cluster and the control-plane tests another, so each of the two goes to a worker as a whole; both mostly wait, and side
by side they take half the time.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
UNIT_SECONDS = 10 if "PYTEST_XDIST_WORKER" in os.environ else 2


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test its time limit and its group."""
    for item in items:
        parts = item.path.relative_to(HERE).parts
        if (
            parts[0] == "unit"
            and not item.get_closest_marker("timeout")
            and not item.get_closest_marker("process")
        ):
            item.add_marker(pytest.mark.timeout(UNIT_SECONDS))
        group = parts[0]
        if parts[-1] in ("test_cluster.py", "test_interop.py"):
            group = "control_plane"  # they need no testbed, and that worker is done first
        item.add_marker(pytest.mark.xdist_group(group))
