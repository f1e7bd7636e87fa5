"""What docs/reference/inference-protocol.md tells to type does what it says there, against the real process."""

import subprocess

import pytest

from tests.server.onnx_models import save, sum_and_difference
from tests.server.process import running
from tests.unit.docs.pages import ROOT, blocks

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]

CONSOLES = blocks(ROOT / "docs/reference/inference-protocol.md", "console")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model = save(sum_and_difference(), tmp_path_factory.mktemp("model") / "pair.onnx")
    with running(model=model) as server:
        server.event("ready")
        yield server


def commands_and_output(console):
    """The commands, each with the lines that its quotes go over, and the lines that they are said to print."""
    commands, printed, quoted = [], [], False
    for line in console.splitlines():
        if quoted:
            commands[-1] += "\n" + line
        elif line.startswith("$ "):
            commands.append(line.removeprefix("$ "))
        else:
            printed.append(line)
            continue
        quoted ^= line.count("'") % 2 == 1
    return commands, printed


@pytest.mark.parametrize("console", CONSOLES, ids=range(len(CONSOLES)))
def test_every_example_prints_what_the_page_says(server, tmp_path, console):
    commands, printed = commands_and_output(console)
    assert printed
    script = "\necho\n".join(commands)  # bodies end without a line's end
    run = subprocess.run(
        ["bash", "-eu", "-c", script.replace("localhost:8080", f"127.0.0.1:{server.port}")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    found = [line for line in run.stdout.splitlines() if line]
    assert (found, run.stderr) == (printed, "")
