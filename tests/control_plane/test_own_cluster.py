"""The tests touch no cluster but their own."""

from pathlib import Path

import pytest

from tests.control_plane import own_cluster


@pytest.mark.parametrize("context", ["production", "kind-edgemodel-", "", "xedgemodel-dev"])
def test_a_foreign_context_is_refused(tmp_path: Path, context: str) -> None:
    file = tmp_path / "config"
    file.write_text(f"current-context: '{context}'\n")
    with pytest.raises(own_cluster.ForeignClusterError, match="does not start with"):
        own_cluster.check_ours(file)


def test_our_own_is_taken(kubeconfig: Path) -> None:
    own_cluster.check_ours(kubeconfig)
