"""Puts together what an operator needs to deliver models by nodes: readings, sightings, passes and the look at heartbeats.

One object for all of it, because an operator has either all or none (``nodeDelivery``): without it nodes are neither read
nor watched, no EdgeNode is written, and pods fetch their models themselves.
"""

from collections.abc import Callable
from datetime import datetime

from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.fleet import Fleet
from edgemodel.cluster.placements import Placements
from edgemodel.controller.edge_nodes import EdgeNodes
from edgemodel.controller.heartbeats import Heartbeats
from edgemodel.controller.metrics import Metrics
from edgemodel.controller.node_sightings import NodeSightings
from edgemodel.controller.settings import OperatorSettings
from edgemodel.controller.sightings import Key, Sightings
from edgemodel.controller.workqueue import WorkQueue


class NodeDelivery:
    """See the module's docstring."""

    def __init__(
        self,
        settings: OperatorSettings,
        api: ApiServer,
        queue: WorkQueue[Key],
        sightings: Sightings,
        metrics: Metrics,
        *,
        lease_namespace: str,
        clock: Callable[[], datetime],
    ) -> None:
        self.fleet = Fleet(api, lease_namespace=lease_namespace)
        placements = Placements(api, namespaces=tuple(settings.namespaces))
        self.passes = EdgeNodes(api, self.fleet, placements, settings.children())
        self.sightings = NodeSightings(
            queue,
            sightings,
            nodes_changed=self.fleet.nodes_changed,
            edge_nodes_changed=self.fleet.edge_nodes_changed,
            models_changed=placements.changed,
        )
        sightings.placing = self.sightings.place
        self.heartbeats = Heartbeats(
            self.fleet, self.sightings, metrics, interval=settings.node_look_interval, clock=clock
        )
