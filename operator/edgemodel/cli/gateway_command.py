"""``edgemodel gateway``: HAProxy in front of all models of a cluster, and what tells it of them."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edgemodel.cli import api_address, command
from edgemodel.cli.command import Commands
from edgemodel.errors import EdgeModelError, Stalled

if TYPE_CHECKING:
    from edgemodel.gateway.settings import GatewaySettings


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "gateway",
        run,
        summary="lead requests to models, in a cluster",
        about="""
Run by a Deployment. Starts HAProxy, and an agent that tells it, from EdgeModels and their pods, where requests go; starts
again whichever ends. While the API server is away what was last known goes on.""",
        examples="""
edgemodel gateway --settings /etc/edgemodel/settings.json""",
    )
    parser.add_argument("--settings", type=Path, help="JSON file of settings")
    parser.add_argument(
        "--haproxy", default="haproxy", metavar="FILE", help="HAProxy's program (default: %(default)s)"
    )
    parser.add_argument(
        "--agent",
        metavar="JSON",
        help="be only the agent, with these settings: HAProxy is run by the process that started this one",
    )
    api_address.add(parser, "its Secrets are")


def run(arguments: argparse.Namespace) -> int:
    """Run the gateway: 0 after a wanted end, 1 after a failure, 2 for wrong settings."""
    import logging

    from edgemodel.process import logs, memory

    memory.return_what_is_freed()
    from edgemodel.gateway.settings import GatewaySettings, read_settings

    logs.configure("info")
    log = logging.getLogger("edgemodel.gateway")
    try:
        if arguments.agent is None:
            _supervise(arguments, read_settings(arguments.settings))
        settings = GatewaySettings.model_validate_json(arguments.agent)
        logs.configure(settings.log_level)
        asyncio.run(_gateway(arguments, settings))
    except Stalled as error:
        log.error("%s", error.message)  # noqa: TRY400 - a message for a person, not a traceback
        return 2
    except (EdgeModelError, OSError) as error:
        log.error("the gateway cannot run: %s", error)  # noqa: TRY400 - a message for a person, not a traceback
        return 1
    return 0


def _supervise(arguments: argparse.Namespace, settings: "GatewaySettings") -> NoReturn:
    """Become the supervisor, which runs this command again with ``--agent``."""
    from edgemodel.gateway.launch import supervise

    agent = [sys.executable, "-m", "edgemodel", "gateway", "--agent", settings.model_dump_json(by_alias=True)]
    agent += ["--haproxy", arguments.haproxy, "--namespace", arguments.namespace]
    for option in ("api_server", "token_file", "api_server_ca"):
        if (value := getattr(arguments, option)) is not None:
            agent += [f"--{option.replace('_', '-')}", str(value)]
    supervise(settings, arguments.haproxy, agent)


async def _gateway(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    import logging

    from edgemodel.gateway.api_server import ApiServer
    from edgemodel.gateway.app import serve

    api = ApiServer(api_address.read(arguments))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with api:
        port = await serve(settings, api, stop=stop, binary=arguments.haproxy)
    logging.getLogger("edgemodel.gateway").info("ended", extra={"port": port})
