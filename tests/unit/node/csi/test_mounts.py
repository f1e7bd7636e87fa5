"""Real mounts by the real kernel, each test in a mount namespace of its own: a child of ``unshare --mount``.

The child runs one scenario of ``mount_scenarios.py``; what it prints on failure is the test's message.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.node.csi import mount_scenarios

ROOT = Path(__file__).resolve().parents[4]

pytestmark = [pytest.mark.process, pytest.mark.timeout(30)]


@pytest.mark.parametrize("name", mount_scenarios.names())
def test_scenario(name: str) -> None:
    """Each scenario's docstring says what it shows."""
    if os.geteuid() != 0:
        pytest.fail("mounting needs root (or `unshare --map-root-user` around pytest)")
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-W", "error", "-m", mount_scenarios.__name__, name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=25,
    )
    assert done.returncode == 0, done.stdout + done.stderr
