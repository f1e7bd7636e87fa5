"""A virtual environment for each peer, under the cache folder, made on first use from the pins in ``peers/versions.json``.

An environment remembers what it was made of; other pins, or another Python, make it anew.
"""

import json
import shutil
import sys
from pathlib import Path

from testbed.paths import CACHE
from testbed.shell import run as command

PROGRAMS = Path(__file__).parent / "peers"
FOLDER = CACHE / "peers"


def python(name: str) -> Path:
    """Return the interpreter of a peer's environment.

    Raises:
        CommandFailed: pip could not install the pins.
    """
    wanted = [f"python=={sys.version_info.major}.{sys.version_info.minor}", *pins()[name]]
    folder = FOLDER / name
    made_of = folder / "made-of.json"
    if not made_of.exists() or json.loads(made_of.read_text()) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        command(sys.executable, "-m", "venv", folder)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        command(*pip, *pins()[name], timeout=900)
        made_of.write_text(json.dumps(wanted))
    return folder / "bin" / "python"


def pins() -> dict[str, list[str]]:
    """Return what each peer's environment is made of."""
    found: dict[str, list[str]] = json.loads((PROGRAMS / "versions.json").read_text())
    return found
