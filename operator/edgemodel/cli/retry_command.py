"""``edgemodel retry``: try a version once more that was taken back."""

import argparse
from datetime import UTC, datetime
from typing import Any

from edgemodel.api.meta import ANNOTATION_RETRY, ANNOTATION_ROLLBACK
from edgemodel.cli import edge_models
from edgemodel.cli.command import Commands
from edgemodel.errors import Stalled
from edgemodel.rollout.facts import names


def add(commands: Commands) -> None:
    """Add the command."""
    edge_models.add(
        commands,
        "retry",
        _change,
        summary="try the version of an EdgeModel once more that was taken back",
        about=f"""
Without it, a version that was taken back is not tried again. Sets the annotation {ANNOTATION_RETRY} to the time, and takes
{ANNOTATION_ROLLBACK} away if it names this version.""",
        examples="""
edgemodel retry detector --namespace vision""",
    )


def _change(model: dict[str, Any], _: argparse.Namespace) -> tuple[dict[str, Any], str]:
    back = model.get("status", {}).get("rolledBack")
    if not back:
        raise Stalled("InvalidSpec", "no version of it was taken back")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    words = f"version {edge_models.named(back)} is tried once more; it was taken back for {back['reason']}"
    patch = edge_models.annotation(ANNOTATION_RETRY, now)
    order = (model["metadata"].get("annotations") or {}).get(ANNOTATION_ROLLBACK, "")
    if names(order, back["digest"]):
        patch["metadata"]["annotations"][ANNOTATION_ROLLBACK] = None
    return patch, words
