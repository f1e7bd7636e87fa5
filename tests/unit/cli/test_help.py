"""``--help`` teaches: every command has an example, and the reference page says what the help says."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgemodel.cli import exit_codes, reference
from edgemodel.cli.main import COMMANDS, parser

ROOT = Path(__file__).parents[3]


def test_the_reference_page_is_what_the_help_says():
    page = (ROOT / "docs/reference/cli.md").read_text()
    assert page.partition("\n\n")[2] == reference.page(), "run hack/generate"


BUNDLE = ("bundle create", "bundle import", "bundle inspect")


@pytest.mark.parametrize(
    "command", [*(name for name in COMMANDS if name not in ("bundle", "node", "operator")), *BUNDLE]
)
def test_every_command_shows_an_example_of_itself(command, capsys):
    words = command.split()
    with pytest.raises(SystemExit) as left:
        parser(words[0]).parse_args([*words, "--help"])
    assert left.value.code == 0
    assert f"edgemodel {command}" in capsys.readouterr().out.partition("examples:")[2]


def test_every_exit_code_is_explained():
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    assert codes == set(exit_codes.MEANINGS)


@pytest.mark.process
def test_fetching_in_a_pod_loads_nothing_it_does_not_need():
    code = (
        "import sys; from edgemodel.cli.main import parser; parser('node'); import edgemodel.node.fetch;"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        "onnx",
        "oras",
        "numpy",
        "yaml",
        "kopf",
        "kubernetes",
        "requests",
        "edgemodel.api.crd",
    }
