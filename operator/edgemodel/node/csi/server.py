"""Serves the driver and its registration on two sockets in the kubelet's directory, and keeps them there.

They are ``<kubelet>/plugins/models.edgemodel.io/csi.sock`` and ``<kubelet>/plugins_registry/models.edgemodel.io-reg.sock``.
One that an earlier process left is replaced; one that somebody removes is made anew within half a minute. Mounts outlive
this process.
"""

import asyncio
import logging
from pathlib import Path
from typing import Self

from edgemodel.api.meta import CSI_DRIVER
from edgemodel.errors import Stalled
from edgemodel.node.csi import identity, mounts
from edgemodel.node.csi.calls import Service
from edgemodel.node.csi.holdings import Holdings
from edgemodel.node.csi.node_service import LONGEST_WAIT, NodeService
from edgemodel.node.csi.registration import Registration
from edgemodel.node.csi.unix_socket import SocketServer

log = logging.getLogger(__name__)


class CsiServer:
    """A driver at work."""

    def __init__(
        self,
        node: NodeService,
        registration: Registration,
        *,
        kubelet_dir: Path,
        models: Path,
        aside: Path | None = None,
    ) -> None:
        self._node = node
        self._registration = registration
        self._kubelet = kubelet_dir
        self._folders = (models,) if aside is None else (models, aside)
        self._sockets: dict[Path, tuple[tuple[Service, ...], SocketServer]] = {}
        self._keeper: asyncio.Task[None] | None = None

    @property
    def registered(self) -> bool:
        """Whether the kubelet said that it knows the driver."""
        return self._registration.registered

    @property
    def problem(self) -> str:
        """Why the kubelet refused to register the driver; empty when it did not refuse."""
        return self._registration.problem

    def mounted(self) -> set[Path]:
        """Return the model directories that pods of this node use, or are about to: none of them may be removed.

        Each under its present name: one that was taken down lies aside.
        """
        table, pods = mounts.table(), self._kubelet / "pods"
        return set().union(*(mounts.sources(one, pods, table) for one in self._folders), self._node.mounting)

    async def start(self, look: float) -> Self:
        """Listen; the socket for the kubelet's registration comes last, when the driver answers."""
        endpoint, registry = endpoints(self._kubelet)
        await self._listen(endpoint, identity.service(), self._node.service())
        try:
            await self._listen(registry, self._registration.service())
        except BaseException:
            await self.close()
            raise
        self._keeper = asyncio.create_task(self._keep(look), name="csi-sockets")
        return self

    async def _listen(self, path: Path, *services: Service) -> None:
        self._sockets[path] = services, await SocketServer.start(path, *services)

    async def _keep(self, look: float) -> None:
        while True:
            await asyncio.sleep(look)
            for path, (services, server) in tuple(self._sockets.items()):
                if server.in_place:
                    continue
                log.warning("%s is gone or another's: made anew", path)
                try:
                    await self._listen(path, *services)
                except Exception:  # the next look tries again; calls on open connections go on
                    log.exception("%s cannot be made", path)
                    continue
                await server.close()

    async def close(self) -> None:
        """Remove the sockets, so that the kubelet takes the driver out of its CSINode, and end; mounts stay."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for _, server in reversed(self._sockets.values()):
            await server.close()
        self._sockets.clear()


def endpoints(kubelet_dir: Path) -> tuple[Path, Path]:
    """Return the paths of the driver's socket and of the one by which it registers."""
    return (
        kubelet_dir / "plugins" / CSI_DRIVER / "csi.sock",
        kubelet_dir / "plugins_registry" / f"{CSI_DRIVER}-reg.sock",
    )


async def serve(
    holdings: Holdings,
    *,
    kubelet_dir: Path,
    node_name: str,
    models: Path,
    aside: Path | None = None,
    wait: float = LONGEST_WAIT,
    look: float = 30.0,
) -> CsiServer:
    """Start the driver.

    Args:
        holdings: what this node has, and for whom.
        kubelet_dir: the kubelet's root directory, at the same path as the kubelet sees it.
        node_name: name of the Node.
        models: the folder whose direct children are the model directories, ``<store>/models``.
        aside: where such a directory is moved when it is taken down, ``<store>/aside``.
        wait: seconds after which a call that waits for a model is refused.
        look: seconds between looks at whether the sockets are still there.

    Raises:
        Stalled: the sockets cannot be made, or a path is relative.
    """
    if not (kubelet_dir.is_absolute() and models.is_absolute()):
        raise Stalled("InvalidSpec", f"expected absolute paths, found {kubelet_dir} and {models}")
    registration = Registration(endpoints(kubelet_dir)[0])
    node = NodeService(holdings, kubelet_dir=kubelet_dir, node_name=node_name, wait=wait)
    server = CsiServer(node, registration, kubelet_dir=kubelet_dir, models=models, aside=aside)
    return await server.start(look)
