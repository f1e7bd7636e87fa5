"""``edgemodel node``: what runs on a node. ``agent`` in a DaemonSet, ``fetch`` as the init container of a model's pod."""

import argparse
import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from edgemodel.cli import api_address, command, exit_codes, output
from edgemodel.cli.command import Commands
from edgemodel.errors import EdgeModelError, Stalled

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgemodel.artifact.pull import PulledModel
    from edgemodel.node.settings import AgentSettings


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("node", help="what runs beside a model on a node")
    group = parser.add_subparsers(metavar="COMMAND", required=True, dest="node_command")
    _add_agent(group)
    _add_fetch(group)


def _add_agent(group: Commands) -> None:
    agent = command.add(
        group,
        "agent",
        run_agent,
        summary="keep this node's models and give them to pods",
        about="""
Run by a DaemonSet. Holds what this node's EdgeNode says, verified again here, and mounts it into pods (CSI driver
models.edgemodel.io). Mounts outlive it.""",
        examples="""
edgemodel node agent --node-name worker-1 --settings /etc/edgemodel/agent.json""",
    )
    environment = os.environ.get
    agent.add_argument(
        "--node-name",
        default=environment("EDGEMODEL_NODE_NAME"),
        required="EDGEMODEL_NODE_NAME" not in os.environ,
        help="name of this Node ($EDGEMODEL_NODE_NAME)",
    )
    agent.add_argument(
        "--store",
        type=Path,
        default=Path("/var/lib/edgemodel"),
        help="where models lie (default: %(default)s)",
    )
    agent.add_argument(
        "--kubelet-dir",
        type=Path,
        default=Path("/var/lib/kubelet"),
        help="the kubelet's root directory (default: %(default)s)",
    )
    agent.add_argument("--settings", type=Path, help="JSON file of settings")
    api_address.add(agent, "the Lease is")


def _add_fetch(group: Commands) -> None:
    fetch = command.add(
        group,
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


def run_agent(arguments: argparse.Namespace) -> int:
    """Run the agent: 0 after a wanted end, 1 after a failure, 2 for wrong settings."""
    import logging

    from edgemodel.process import logs, memory

    memory.return_what_is_freed()
    from edgemodel.node.settings import read_settings

    logs.configure("info")
    log = logging.getLogger("edgemodel.node")
    try:
        settings = read_settings(arguments.settings)
        logs.configure(settings.log_level)
        return asyncio.run(_agent(arguments, settings, memory.settle))
    except Stalled as error:
        log.error("%s", error.message)  # noqa: TRY400 - a message for a person, not a traceback
        return 2
    except (EdgeModelError, OSError) as error:
        log.error("the agent cannot run: %s", error)  # noqa: TRY400 - a message for a person, not a traceback
        return 1


async def _agent(
    arguments: argparse.Namespace, settings: "AgentSettings", started: "Callable[[], None]"
) -> int:
    from edgemodel.node.agent import Agent
    from edgemodel.node.api_server import ApiServer

    api = ApiServer(api_address.read(arguments), arguments.node_name)
    async with api:
        agent = Agent(settings, api, store=arguments.store, kubelet_dir=arguments.kubelet_dir)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop)
        return await agent.run(started=started)


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
