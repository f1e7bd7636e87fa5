"""One gateway process: its agent, its metrics and health, from start to end."""

import asyncio
import logging

from edgemodel.gateway.agent import Gateway
from edgemodel.gateway.api_server import ApiServer
from edgemodel.gateway.settings import GatewaySettings
from edgemodel.process import memory
from edgemodel.process.probes import ProbeServer

log = logging.getLogger(__name__)


async def serve(
    settings: GatewaySettings, api: ApiServer, *, stop: asyncio.Event, binary: str = "haproxy"
) -> int:
    """Run a gateway until ``stop`` is set; return the port of its metrics and health.

    Raises:
        OSError: a port is taken.
    """
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
        await gateway.haproxy.kill()
        await probes.stop()
    return probes.port
