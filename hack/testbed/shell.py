"""Run a command; a failure shows its output."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from testbed.paths import ROOT


class CommandFailed(AssertionError):
    """A command did not exit as expected; the message holds what it printed."""


def run(
    *command: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120.0,
    check: bool = True,
    cwd: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run to the end and return the result; raise CommandFailed on a non-zero exit when ``check`` is set."""
    arguments = [str(word) for word in command]
    done = subprocess.run(
        arguments,
        input=stdin,
        env={**os.environ, **(env or {})},
        timeout=timeout,
        text=True,
        capture_output=True,
        cwd=cwd,
        check=False,
    )
    if check and done.returncode != 0:
        raise CommandFailed(
            f"{' '.join(arguments)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done
