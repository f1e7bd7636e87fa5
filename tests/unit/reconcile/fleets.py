"""Worlds in which nodes deliver."""

from typing import Any

from tests.unit.reconcile.world import World, judged


def fleet(*names: str, target: str = "A", **spec: Any) -> World:
    """Return a world with nodes whose agents are alive."""
    world = World(target, **spec)
    for name in names or ("n1", "n2"):
        world.add_node(name)
    return world


def serving(*names: str, **spec: Any) -> World:
    """Return a world in which version A serves from its nodes."""
    world = (
        fleet(*names, **spec).settle().hold("A", kind="Full", bytes=10, total=10).settle().ready("A").settle()
    )
    assert world.condition("Ready") == ("True", "Serving")
    world.told()
    return world


def next_version(world: World) -> World:
    """Let the tag move to version B."""
    world.target = judged("B")
    return world.settle()


def kinds(world: World) -> set[str]:
    return {kind for kind, _ in world.children}
