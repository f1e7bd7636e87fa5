"""``edgemodel crd``: the custom resource definitions, for clusters that are set up without the chart."""

import argparse
import json

from edgemodel.cli import command
from edgemodel.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    command.add(
        commands,
        "crd",
        run,
        summary="print the custom resource definitions",
        about="""
One JSON list that kubectl takes. The Helm chart brings the same definitions.""",
        examples="""
edgemodel crd | kubectl apply --server-side -f -""",
    )


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - all commands are called alike
    """Run the command."""
    from edgemodel.api import crd

    print(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": list(crd.definitions().values())}, indent=2)
    )
    return 0
