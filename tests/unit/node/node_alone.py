"""One node's agent without its API server and its kubelet: entries go in, lines and model directories come out."""

from datetime import UTC, datetime

from edgemodel.artifact import sealing
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_settings import HostSettings, Limits, RegistrySettings
from edgemodel.node.arrivals import Arrivals
from edgemodel.node.board import Board
from edgemodel.node.entry import read_spec
from edgemodel.node.metrics import Metrics
from edgemodel.node.rechecks import Rechecks
from edgemodel.node.site import Site
from edgemodel.node.store import NodeStore
from edgemodel.node.transfer import Transfers
from edgemodel.node.turnstile import Turnstile
from tests.unit.artifact.registry_client import SHORT
from tests.unit.node.site import NODE, until

FILES = {"model.onnx": b"graph" * 100, "weights/model.data": b"w" * 300_000}


class Node:
    """One node's agent without its API server and its kubelet."""

    def __init__(
        self,
        root,
        registry,
        *,
        downloads=2,
        limits: Limits = SHORT,
        grace=0.05,
        longest_wait=1.0,
        stagger=0.0,
    ):
        self.time = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.root, self.registry = root, registry
        self.settings = RegistrySettings({registry.host: HostSettings(plain_http=True)})
        self.store = NodeStore(root, budget=1 << 30)
        self.connections = Connections(self.settings, limits)
        self.board = Board(lambda: self.time, lambda _: None)
        self.metrics = Metrics(models=lambda _: 0.0)
        self.key = sealing.new_key()
        site = Site(
            node=NODE,
            store=self.store,
            transfers=Transfers(self.store, self.connections),
            connections=self.connections,
            board=self.board,
            metrics=self.metrics,
            key=self.key,
            downloads=Turnstile(downloads),
            clock=lambda: self.time,
            first_pause=0.05,
            spread=0.0,
            stagger=stagger,
        )
        self.arrivals = Arrivals(site, grace=grace, longest_wait=longest_wait)
        self.rechecks = Rechecks(
            self.arrivals,
            self.store,
            self.metrics,
            bytes_per_second=1 << 30,
            clock=lambda: self.time,
            look=0.02,
        )

    def take(self, wanted):
        self.arrivals.take(read_spec(wanted).entries)

    def lines(self):
        return {line.digest: line for line in self.board.lines()}

    async def state(self, published, *states, reason=None):
        def found():
            line = self.lines().get(published.pinned.digest)
            return line if line and line.state in states and reason in (None, line.reason) else None

        return await until(found)

    async def mount(self, published, namespace="vision", name="detector"):
        return await self.arrivals.directory(namespace, name, str(published.pinned.digest))

    async def close(self):
        await self.arrivals.close()
        await self.connections.aclose()
