"""What the commands that speak to a cluster share: which EdgeModel is meant, and one change to it.

Each of them is an annotation or a field that ``kubectl`` can set as well; the output says which.
"""

import argparse
import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemodel.cli import command, options, output
from edgemodel.cli.command import Commands
from edgemodel.errors import Stalled

Object = dict[str, Any]
Change = Callable[[Object, argparse.Namespace], tuple[Object, str]]
"""From the EdgeModel to a merge patch, and words that say what it asks for; raises Stalled when it makes no sense."""


def add(
    commands: Commands, name: str, change: Change, *, summary: str, about: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command that changes one EdgeModel; return its parser."""
    parser = command.add(
        commands,
        name,
        lambda arguments: _run(arguments, change),
        summary=summary,
        about=about,
        examples=examples,
    )
    parser.add_argument("name", metavar="NAME", help="the EdgeModel's")
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "-n", "--namespace", default="default", metavar="NAMESPACE", help="the EdgeModel's (default: default)"
    )
    group.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="how the cluster is reached (default: $KUBECONFIG or ~/.kube/config)",
    )
    group.add_argument("--context", metavar="NAME", help="context of it (default: the current one)")
    options.add_output(parser)
    return parser


def slot(model: Object, role: str) -> Object:
    """Return a slot of an EdgeModel's status; empty when there is none."""
    found: Object = (model.get("status", {}).get("slots") or {}).get(role) or {}
    return found


def named(version: Object) -> str:
    """Return how people call a version."""
    return str(version.get("version") or version["digest"][: len("sha256:") + 12])


def annotation(name: str, value: str) -> Object:
    """Return a merge patch that sets an annotation."""
    return {"metadata": {"annotations": {name: value}}}


def _run(arguments: argparse.Namespace, change: Change) -> int:
    patch, words = asyncio.run(_edit(arguments, change))
    if arguments.output == "json":
        output.document(
            {"namespace": arguments.namespace, "name": arguments.name, "patch": patch, "does": words}
        )
    else:
        output.fields([("edgemodel", f"{arguments.namespace}/{arguments.name}"), ("asked for", words)])
        same = json.dumps(patch, separators=(",", ":"))
        output.note(
            f"The same by kubectl: kubectl patch em {arguments.name} -n {arguments.namespace} --type merge -p '{same}'"
        )
        output.note(
            f"To see what comes of it: kubectl get em {arguments.name} -n {arguments.namespace} --watch"
        )
    return 0


async def _edit(arguments: argparse.Namespace, change: Change) -> tuple[Object, str]:
    try:
        from edgemodel.cluster.client import connect
        from edgemodel.cluster.kinds import EDGE_MODEL
    except ImportError as error:
        raise Stalled(
            "InvalidSpec", f"{error.name} is not installed; install edgemodel[operator] to speak to a cluster"
        ) from None
    async with await connect(kubeconfig=arguments.kubeconfig, context=arguments.context) as api:
        model = await api.get(EDGE_MODEL, arguments.namespace, arguments.name)
        if model is None:
            raise Stalled(
                "NotFound",
                f"there is no EdgeModel {arguments.namespace}/{arguments.name}; --namespace says where to look",
            )
        patch, words = change(model, arguments)
        # What was looked at is what is changed: a version that appeared meanwhile is not meant.
        patch.setdefault("metadata", {})["resourceVersion"] = model["metadata"]["resourceVersion"]
        await api.merge(EDGE_MODEL, arguments.namespace, arguments.name, patch)
        del patch["metadata"]["resourceVersion"]
        if not patch["metadata"]:
            del patch["metadata"]
    return patch, words
