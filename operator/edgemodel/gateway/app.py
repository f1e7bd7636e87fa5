"""The agent's process, with its metrics and health, from start to end."""

import asyncio
import fcntl
import logging

from edgemodel.errors import Stalled
from edgemodel.gateway.agent import Gateway
from edgemodel.gateway.api_server import ApiServer
from edgemodel.gateway.settings import GatewaySettings
from edgemodel.process import memory
from edgemodel.process.probes import ProbeServer

log = logging.getLogger(__name__)

LOCK = "agent.lock"


async def serve(
    settings: GatewaySettings, api: ApiServer, *, stop: asyncio.Event, binary: str = "haproxy"
) -> int:
    """Run the agent until ``stop`` is set; return the port of its metrics and health.

    Raises:
        OSError: a port is taken.
        Stalled: another agent tells the same HAProxy.
    """
    settings.state_folder.mkdir(parents=True, exist_ok=True)
    with (settings.state_folder / LOCK).open("a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Stalled(
                "GatewayFailed", f"another agent uses {settings.state_folder}; expected to be the only one"
            ) from None
        return await _serve(settings, api, stop=stop, binary=binary)


async def _serve(settings: GatewaySettings, api: ApiServer, *, stop: asyncio.Event, binary: str) -> int:
    gateway = Gateway(settings, api, binary=binary)
    probes = ProbeServer(
        gateway.metrics.registry,
        healthy=gateway.unhealthy,
        ready=gateway.unready,
        more={"/current": gateway.outdated},
    )
    await probes.start(settings.host, settings.port)
    log.info("listening", extra={"port": probes.port})
    memory.settle()
    running = asyncio.create_task(gateway.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        gateway.stop()
        await running
    finally:
        stopping.cancel()
        await probes.stop()
    return probes.port
