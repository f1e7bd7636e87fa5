"""Every example's README is executed as it stands, its shell blocks in order, in one shell.

The one without a cluster is executed by ``tests/server/test_stand_alone.py``.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from testbed.installation import Testbed
from testbed.paths import BIN, ROOT
from testbed.shell import run

EXAMPLES = [page for page in sorted((ROOT / "examples").glob("*/README.md")) if "kubectl" in page.read_text()]


@pytest.mark.parametrize("readme", EXAMPLES, ids=[path.parent.name for path in EXAMPLES])
def test_the_readme_works_as_it_stands(readme: Path, bed: Testbed, tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(readme.parent, folder)
    blocks = re.findall(r"^```sh\n(.*?)^```", readme.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert blocks
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{BIN}:{os.environ['PATH']}",
        "KUBECONFIG": str(bed.kube.kubeconfig),
        "REGISTRY": bed.registry,
    }
    told = run("bash", "-euxo", "pipefail", "-c", "\n".join(blocks), env=environment, cwd=folder, timeout=280)
    assert "Serving" in told.stdout
