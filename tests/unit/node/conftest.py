"""A registry, and nodes that fetch from it."""

import pytest

from tests.simulators.registry import RegistrySimulator
from tests.unit.node import node_world
from tests.unit.node.node_alone import Node


@pytest.fixture
async def registry():
    async with RegistrySimulator() as registry:
        yield registry


@pytest.fixture
def simulator(registry):
    return registry


@pytest.fixture
async def here(registry, tmp_path):
    """A store and its transfers."""
    async with node_world.node(registry, tmp_path / "store", grace=0.0) as here:
        yield here


@pytest.fixture
async def node(tmp_path, registry):
    """A whole agent, without API server and kubelet."""
    node = Node(tmp_path / "store", registry)
    yield node
    await node.close()
