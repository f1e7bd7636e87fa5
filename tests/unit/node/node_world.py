"""A registry, a node's store and its transfers, for tests: models of a few kilobytes, deltas of the test's own making."""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgemodel.artifact import media_types
from edgemodel.artifact.delta_artifact import DeltaLayer, build_delta_manifest
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_settings import HostSettings, RegistrySettings
from edgemodel.artifact.verify import examine
from edgemodel.errors import Refused
from edgemodel.node.limiter import Limiter
from edgemodel.node.store import NodeStore
from edgemodel.node.transfer import Brought, Progress, Transfers
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import POLICY, RELEASE, REPOSITORY, Published, layer, publish
from tests.unit.artifact.registry_client import SHORT

MAGIC = b"suffix of the test\n"
STEP = 64 << 10


@dataclass(frozen=True)
class Wish:
    """What an agent's entry has that matters here."""

    model_file: str | None = None


def release(number: int) -> object:
    return replace(RELEASE, version=f"1.{number}.0", sequence=number)


def graph(number: int) -> bytes:
    return f"graph of version {number}".encode() * 50


def weights(size: int, seed: str = "") -> bytes:
    return hashlib.shake_256(f"weights {seed}".encode()).digest(size)


def patch(new: bytes, kept: int) -> bytes:
    """A delta: the base's first ``kept`` bytes and then these."""
    return MAGIC + str(kept).encode() + b"\n" + new[kept:]


async def apply_suffix(
    base: Path | None, patch: Path, write: Callable[[bytes | memoryview], None], *, size: int
) -> None:
    """Apply what ``patch`` makes."""
    for piece in rebuilt(base, patch):
        write(piece)


def rebuilt(base: Path | None, patch: Path) -> Iterator[bytes]:
    magic, _, rest = patch.read_bytes().partition(b"\n")
    if magic + b"\n" != MAGIC or base is None:
        raise Refused("DeltaInvalid", "not a delta of the test")
    kept, _, end = rest.partition(b"\n")
    whole = base.read_bytes()[: int(kept)] + end
    for start in range(0, len(whole), STEP):
        yield whole[start : start + STEP]


def attach_delta(
    simulator: RegistrySimulator, new: Published, patches: Mapping[tuple[bytes, bytes], bytes]
) -> None:
    """Publish deltas: from and to which content, and the patch."""
    layers = []
    for (old, content), made in patches.items():
        simulator.add_blob(REPOSITORY, made)
        descriptor = layer(made, media_types.DELTA_LAYER)
        layers.append(DeltaLayer(layer(old).digest, layer(content).digest, "patch-from", descriptor))
    simulator.add_blob(REPOSITORY, b"{}")
    simulator.add_manifest(REPOSITORY, build_delta_manifest(new.manifest.descriptor, layers))


class Node:
    """One node's store and transfers."""

    def __init__(
        self, simulator: RegistrySimulator, store: NodeStore, connections: Connections, limiter: Limiter
    ) -> None:
        self.simulator = simulator
        self.store = store
        self.connections = connections
        self.limiter = limiter
        self.transfers = Transfers(store, connections, limiter=limiter, apply=apply_suffix)
        self.seen: list[Progress] = []

    async def bring(self, published: Published, model_file: str | None = None, **more: object) -> Brought:
        """Examine, judge and bring, as an agent does."""
        examined = self.store.examined(published.manifest.digest)
        if examined is None:
            examined = await examine(Registry(self.connections), published.pinned)
        verdict = examined.judge([POLICY])
        return await self.transfers.bring(
            Wish(model_file), published.pinned, examined, verdict, None, self.seen.append, **more
        )

    def rebooted(self, boot: str) -> "Node":
        """The same disk after the node started again."""
        store = NodeStore(self.store.root, budget=self.store.budget, boot=boot)
        return Node(self.simulator, store, self.connections, self.limiter)

    def restarted(self) -> "Node":
        """The same disk, the agent's process anew."""
        return self.rebooted(self.store.blobs.boot)


@asynccontextmanager
async def node(simulator: RegistrySimulator, root: Path, **more: object) -> AsyncIterator[Node]:
    settings = RegistrySettings({simulator.host: HostSettings(plain_http=True)})
    async with Connections(settings, SHORT) as connections:
        store = NodeStore(root, boot="first", **more)  # type: ignore[arg-type]
        yield Node(simulator, store, connections, Limiter())


def blob_requests(simulator: RegistrySimulator, content: bytes) -> list[object]:
    """Requests for one blob."""
    return simulator.seen("GET", str(layer(content).digest))


def tree(root: Path) -> dict[str, int]:
    """Every file below a folder but the lock and records, with its length."""
    return {
        str(path.relative_to(root)): path.stat().st_size
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


__all__ = ["publish"]
