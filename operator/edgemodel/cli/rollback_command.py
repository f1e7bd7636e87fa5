"""``edgemodel rollback``: a person takes a version back."""

import argparse
from typing import Any

from edgemodel.api.meta import ANNOTATION_ROLLBACK
from edgemodel.cli import edge_models
from edgemodel.cli.command import Commands
from edgemodel.errors import Stalled


def add(commands: Commands) -> None:
    """Add the command."""
    edge_models.add(
        commands,
        "rollback",
        _change,
        summary="take the candidate of an EdgeModel back, or the version that serves",
        about=f"""
With a candidate, it is the candidate that goes. Without one the version that serves makes way for the one before it.
Sets the annotation {ANNOTATION_ROLLBACK} to the digest that is to go; it is not tried again as long as that stands.""",
        examples="""
edgemodel rollback detector --namespace vision""",
    )


def _change(model: dict[str, Any], _: argparse.Namespace) -> tuple[dict[str, Any], str]:
    candidate, active, last_good = (
        edge_models.slot(model, role) for role in ("candidate", "active", "lastGood")
    )
    # A rollback in progress is a candidate too: the last good version on its way back.
    if candidate and candidate["digest"] != last_good.get("digest"):
        words = f"version {edge_models.named(candidate)} is taken back"
        return edge_models.annotation(ANNOTATION_ROLLBACK, candidate["digest"]), words
    if not active or not last_good:
        raise Stalled(
            "InvalidSpec",
            "it has no candidate, and no version before the one that serves that it could go back to; "
            "to stop it, set spec.replicas to 0",
        )
    words = f"version {edge_models.named(active)} makes way for {edge_models.named(last_good)}"
    return edge_models.annotation(ANNOTATION_ROLLBACK, active["digest"]), words
