"""``edgemodel pause``: hold the change of version, or let it go on."""

import argparse
from typing import Any

from edgemodel.cli import edge_models
from edgemodel.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = edge_models.add(
        commands,
        "pause",
        _change,
        summary="hold the change of version of an EdgeModel",
        about="""
New versions are resolved, verified and delivered, and wait; a step under way lasts until the pause ends. What serves goes on
serving. Sets spec.rollout.paused.""",
        examples="""
edgemodel pause detector --namespace vision
edgemodel pause detector --namespace vision --end""",
    )
    parser.add_argument("--end", action="store_true", help="let it go on")


def _change(_: dict[str, Any], arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    words = "the change of version goes on" if arguments.end else "the change of version is held"
    return {"spec": {"rollout": {"paused": not arguments.end}}}, words
