"""The real Helm renders the real chart: the binary is the cluster's own, built once and kept outside the checkout."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import binaries

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/edgemodel"

Objects = dict[tuple[str, str], dict[str, Any]]
"""Rendered objects by kind and name."""


class HelmFailed(AssertionError):
    """Helm refused; the message is what it printed."""


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    binaries.ensure((binaries.HELM,), print)
    home = tmp_path_factory.mktemp("helm")
    ours = {f"HELM_{kind}_HOME": str(home / kind) for kind in ("CACHE", "CONFIG", "DATA")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **ours}

    def run(*arguments: str) -> str:
        command = [str(binaries.HELM.path()), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise HelmFailed(done.stdout + done.stderr)
        return done.stdout

    return run


@pytest.fixture(scope="session")
def render_text(helm: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    given = tmp_path_factory.mktemp("values") / "values.yaml"

    def render(values: dict[str, Any] | None = None, *arguments: str) -> str:
        given.write_text(yaml.safe_dump(values or {}))
        return helm(
            *("template", "edgemodel", str(CHART), "--namespace", "edgemodel-system"),
            *("--values", str(given), *arguments),
        )

    return render


@pytest.fixture(scope="session")
def render(render_text: Callable[..., str]) -> Callable[..., Objects]:
    def objects(values: dict[str, Any] | None = None) -> Objects:
        documents = [one for one in yaml.safe_load_all(render_text(values)) if one]
        found = {(one["kind"], one["metadata"]["name"]): one for one in documents if one["kind"] != "Role"}
        roles = (one for one in documents if one["kind"] == "Role")
        return found | {
            ("Role", f"{one['metadata']['namespace']}/{one['metadata']['name']}"): one for one in roles
        }

    return objects
