"""``edgemodel promote``: a person takes the word for a candidate."""

import argparse
from typing import Any

from edgemodel.api.meta import ANNOTATION_PROMOTE
from edgemodel.cli import edge_models
from edgemodel.cli.command import Commands
from edgemodel.errors import Stalled


def add(commands: Commands) -> None:
    """Add the command."""
    edge_models.add(
        commands,
        "promote",
        _change,
        summary="let the candidate of an EdgeModel take over now",
        about=f"""
Ends the steps, the gate and the wait for a window for this one version: it takes over as soon as its pods are ready.
Sets the annotation {ANNOTATION_PROMOTE} to the candidate's digest; a later version is judged again.""",
        examples="""
edgemodel promote detector --namespace vision""",
    )


def _change(model: dict[str, Any], _: argparse.Namespace) -> tuple[dict[str, Any], str]:
    candidate = edge_models.slot(model, "candidate")
    if not candidate:
        raise Stalled("InvalidSpec", "it has no candidate that could be promoted")
    words = f"version {edge_models.named(candidate)} takes over as soon as its pods are ready"
    return edge_models.annotation(ANNOTATION_PROMOTE, candidate["digest"]), words
