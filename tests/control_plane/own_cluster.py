"""Starts the control plane that these tests run against, and refuses every other cluster."""

import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
NAME = "control"


class ForeignClusterError(RuntimeError):
    """The tests were pointed at a cluster that is not theirs."""


def kubeconfig() -> Path:
    """Return the kubeconfig of a running control plane: ours, started when needed, or ``$EDGEMODEL_TEST_KUBECONFIG``.

    Raises:
        ForeignClusterError: its context is not one of ``hack/cluster``'s.
    """
    named = os.environ.get("EDGEMODEL_TEST_KUBECONFIG")
    if named:
        path = Path(named)
    else:
        cluster = ROOT / "hack/cluster/cluster"
        subprocess.run(
            [cluster, "up", "--control-plane-only", "--audit", "--name", NAME],
            check=True,
            capture_output=True,
        )
        found = subprocess.run(
            [cluster, "kubeconfig", "--name", NAME], check=True, capture_output=True, text=True
        )
        path = Path(found.stdout.strip())
    check_ours(path)
    return path


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
