"""Starts the control plane that these tests run against, and refuses every other cluster."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
NAME = os.environ.get("EDGEMODEL_CONTROL_PLANE", "control")
"""Name of the cluster: another in the environment lets two people test side by side."""


class ForeignClusterError(RuntimeError):
    """The tests were pointed at a cluster that is not theirs."""


@contextmanager
def kubeconfig() -> Iterator[Path]:
    """Yield the kubeconfig of a running control plane; one that was not running is taken down again.

    Raises:
        ForeignClusterError: its context is not one of ``hack/cluster``'s.
    """
    ran = _cluster("status", check=False).returncode == 0
    if not ran:
        _cluster("up", "--control-plane-only", "--audit")
    try:
        path = Path(_cluster("kubeconfig").stdout.strip())
        check_ours(path)
        yield path
    finally:
        if not ran:
            _cluster("down")


def _cluster(command: str, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [ROOT / "hack/cluster/cluster", command, *flags, "--name", NAME], capture_output=True, text=True
    )
    if check and done.returncode:
        raise RuntimeError(f"cluster {command} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done


def check_ours(path: Path) -> None:
    """Raise unless the kubeconfig's current context is one of ours."""
    context = str(yaml.safe_load(path.read_text()).get("current-context", ""))
    if not context.startswith("edgemodel-"):
        raise ForeignClusterError(f"context {context!r} of {path} does not start with 'edgemodel-'")


def custom_resources() -> list[dict[str, object]]:
    """Return the generated CRDs."""
    return [
        document
        for file in sorted((ROOT / "crds").glob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
        if document
    ]
