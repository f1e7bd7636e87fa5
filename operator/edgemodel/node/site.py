"""What all ways of models onto one node share: its store, its line, its clock, and how patient it is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.sealing import SealingKey
from edgemodel.node.board import Board
from edgemodel.node.metrics import Metrics
from edgemodel.node.store import NodeStore
from edgemodel.node.transfer import Transfers
from edgemodel.node.turnstile import Turnstile


@dataclass(slots=True)
class Site:
    """What all arrivals of a node share."""

    node: str
    store: NodeStore
    transfers: Transfers
    connections: Connections
    board: Board
    metrics: Metrics
    key: SealingKey
    downloads: Turnstile
    clock: Callable[[], datetime]
    """This node's, aware: windows are told by it."""
    first_pause: float = 2.0
    """Ceiling in seconds of the wait after a first failure; doubles up to five minutes."""
    spread: float = 60.0
    """Seconds over which the nodes of a fleet begin after a window opened."""
    stagger: float = 5.0
    """Seconds over which they begin with a version that takes another's place, without a window."""
    local: Turnstile = field(default_factory=lambda: Turnstile(1))
    """For work that needs the disk alone: hashing after a reboot must not wait behind slow lines."""
