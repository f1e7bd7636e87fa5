"""Follows this node's own EdgeNode: makes it when there is none, and yields it whenever it may have changed.

Promises: ends for no failure, only with its task; after a gap of whatever length it begins by reading what is; a fleet that
lost its API server does not come back as one. Leaves to others: what the object says.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from edgemodel.kube_api import ApiFailed, Object, WatchExpired
from edgemodel.node.api_server import ApiServer
from edgemodel.node.backoff import Backoff

log = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0


async def edge_nodes(api: ApiServer, *, first_pause: float = 1.0) -> AsyncGenerator[Object, None]:
    """Yield the EdgeNode as it is, and again after each change.

    Args:
        api: where it is.
        first_pause: ceiling in seconds of the wait after a first failure; doubles up to a minute.
    """
    version, backoff = "", Backoff(first_pause, LONGEST_PAUSE)
    while True:
        try:
            if not version:
                found = await _found_or_made(api)
                version = _version(found)
                yield found
            backoff.reset()
            began, came = asyncio.get_running_loop().time(), False
            async with aclosing(api.watch_edge_node(version)) as events:
                async for event in events:
                    came = True
                    version = _version(event) or version
                    if event.get("kind") != "Bookmark":
                        yield event
            if not came and asyncio.get_running_loop().time() - began < first_pause:
                await asyncio.sleep(
                    first_pause
                )  # a proxy that ends every watch at once is not to be hammered
        except WatchExpired:
            version = ""
        except ApiFailed as error:
            version = ""
            log.warning("cannot follow this node's EdgeNode: %s", error.message)
            await asyncio.sleep(backoff.next(error.retry_after))


async def _found_or_made(api: ApiServer) -> Object:
    found = await api.get_edge_node() or await api.create_edge_node() or await api.get_edge_node()
    if found is None:
        raise ApiFailed("the EdgeNode comes and goes")
    return found


def _version(found: Object) -> str:
    metadata = found.get("metadata")
    return str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""
