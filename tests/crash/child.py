"""Runs a story of this folder in a process of its own, and returns what it told."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


async def story_of(module: str, *arguments: str, under: tuple[str, ...] = ()) -> tuple[dict[str, Any], str]:
    """Return what the story printed, and what it said on standard error.

    Args:
        module: of this folder.
        arguments: its own.
        under: command in front of it, such as ``unshare``.
    """
    child = await asyncio.create_subprocess_exec(
        *(*under, sys.executable, "-m", f"tests.crash.{module}", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await child.communicate()
    assert child.returncode == 0, said.decode()
    told: dict[str, Any] = json.loads(out)
    return told, said.decode()
