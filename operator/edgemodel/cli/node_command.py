"""``edgemodel node fetch``: what the init container of a model's pod runs."""

import argparse
import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from edgemodel.cli import command, exit_codes, output
from edgemodel.cli.command import Commands
from edgemodel.errors import EdgeModelError

if TYPE_CHECKING:
    from edgemodel.artifact.pull import PulledModel


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("node", help="what runs beside a model on a node")
    fetch = command.add(
        parser.add_subparsers(metavar="COMMAND", required=True, dest="node_command"),
        "fetch",
        run,
        summary="pull one pinned model into a volume, verified again",
        about="""
Run by the operator as a pod's init container. A folder that is whole already is left as it is, without a network.
On failure one line of JSON with reason and message goes to standard error and to the termination log.""",
        examples="""
edgemodel node fetch --reference registry.example.com/models/detector@sha256:… \\
    --config-dir /etc/edgemodel --secrets-dir /etc/edgemodel-secrets --output /models --name detector""",
    )
    environment = os.environ.get
    fetch.add_argument(
        "--reference",
        default=environment("EDGEMODEL_REFERENCE"),
        required="EDGEMODEL_REFERENCE" not in os.environ,
        help="registry/repository@sha256:… ($EDGEMODEL_REFERENCE)",
    )
    fetch.add_argument(
        "--config-dir",
        type=Path,
        default=Path("/etc/edgemodel"),
        help="holds policies.json and registries.json",
    )
    fetch.add_argument("--secrets-dir", type=Path, help="holds <number>/.dockerconfigjson")
    # Not --output, which elsewhere says how results are printed: here it is the operator's word for where the model goes.
    fetch.add_argument("--output", dest="folder", type=Path, default=Path("/models"), help="the pod's volume")
    fetch.add_argument("--name", default=environment("EDGEMODEL_NAME", ""), help="model name to write")
    fetch.add_argument("--version", default=environment("EDGEMODEL_VERSION", ""), help="version to write")
    fetch.add_argument(
        "--model-file", default=environment("EDGEMODEL_MODEL_FILE"), help="entry file in the artifact"
    )
    fetch.add_argument(
        "--termination-log", type=Path, default=Path("/dev/termination-log"), help="where Kubernetes looks"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.node.fetch import report

    try:
        model = asyncio.run(_fetch(arguments))
    except EdgeModelError as error:
        print(report(error, arguments.termination_log), file=sys.stderr)
        return exit_codes.of(error)
    except asyncio.CancelledError:
        return exit_codes.TERMINATED
    output.fields(
        [
            ("fetched", model.reference),
            ("verified by", ", ".join(model.verdict.verified_by)),
            ("model file", model.description.file),
            ("downloaded", output.size(model.downloaded)),
        ]
    )
    return exit_codes.OK


async def _fetch(arguments: argparse.Namespace) -> "PulledModel":
    from edgemodel.artifact.reference import Reference
    from edgemodel.node.fetch import fetch

    task = asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        # As process 1 of a container SIGTERM does nothing by itself: the pod would hang until it is killed.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await fetch(
        Reference.parse(arguments.reference),
        arguments.folder,
        config=arguments.config_dir,
        secrets=arguments.secrets_dir,
        name=arguments.name,
        version=arguments.version,
        model_file=arguments.model_file,
    )
