"""Says that this node is alive: one small write of its Lease now and then, and nothing else.

Promises: on a metered line it costs one patch of one field; a beat that fails is tried once more before the next is due.
"""

import asyncio
import logging
import random
from collections.abc import Callable

from edgemodel.api.meta import BEATS_MISSED
from edgemodel.kube_api import ApiFailed
from edgemodel.node.api_server import ApiServer

log = logging.getLogger(__name__)


async def beat(api: ApiServer, seconds: float, *, heard: Callable[[], None] = lambda: None) -> None:
    """Renew the Lease every so many seconds, for ever.

    Args:
        api: where it is.
        seconds: between two beats; each comes up to a tenth earlier, so that a fleet does not beat as one.
        heard: called after each beat that the API server took.
    """
    silent = False
    while True:
        wait = seconds * random.uniform(0.9, 1.0)  # noqa: S311 - not for secrecy
        try:
            await api.renew_lease(round(seconds * BEATS_MISSED))
            heard()
            if silent:
                log.info("the API server is back")
            silent = False
        except ApiFailed as error:
            if not silent:
                log.warning("cannot renew this node's Lease: %s", error.message)
            silent, wait = True, wait / 2
        await asyncio.sleep(wait)
