"""What the CSI driver asks of the node agent: where a model lies, for a pod of one namespace.

The agent implements ``Holdings`` over its store and its own EdgeNode; the driver authorises nothing by itself.
"""

from pathlib import Path
from typing import Protocol

from edgemodel.errors import EdgeModelError


class NotEntitled(EdgeModelError):
    """The namespace has no such model on this node; nothing about other namespaces is told."""

    def __init__(self, message: str) -> None:
        super().__init__("NotEntitled", message)


class NotReady(EdgeModelError):
    """The model is on its way; the message is its progress. The kubelet asks again by itself."""

    def __init__(self, progress: str) -> None:
        super().__init__("Downloading", progress)


class Failed(EdgeModelError):
    """The model cannot be had: refused, or not to be downloaded; reason and message say what to do."""


class Holdings(Protocol):
    """Models that this node holds or is fetching."""

    async def directory(self, namespace: str, model: str, digest: str) -> Path:
        """Return the directory of an installed, judged model, which stays there while its EdgeNode entry does.

        Returns at once when it is there; waits, for about 100 s at most, while it is on its way. Waiting must cost a
        future and no more: many pods may wait for one model.

        Args:
            namespace: the pod's own namespace, as the kubelet names it.
            model: name of the EdgeModel there.
            digest: ``sha256:`` and 64 hex digits, of the artifact's manifest.

        Raises:
            NotEntitled: this node's EdgeNode has no such entry.
            NotReady: it is still on its way.
            Failed: it will not come without a change.
        """
        ...
