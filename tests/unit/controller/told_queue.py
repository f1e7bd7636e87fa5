"""A work queue that writes down what it is told, and gives out nothing."""

from typing import Any

from edgemodel.controller.sightings import Key
from edgemodel.controller.workqueue import WorkQueue


class Queue(WorkQueue[Key]):
    """Writes down what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def add(self, key: Key) -> None:
        self.told.append(key)

    def add_after(self, key: Key, seconds: float) -> None:
        self.told.append((key, seconds))

    def taken(self) -> list[Any]:
        taken, self.told = self.told, []
        return taken
