"""Brings judged artifacts into the node's store: what is there is kept, the rest comes as small as it can be.

For each file of an artifact: nothing when its bytes are here; a delta when one is published whose base is here and that is
sooner than the whole; else the whole, from where an earlier try stopped.

Promises
- One download a blob, however many ask and whatever for; everybody who waits for it sees it progress.
- A delta never decides what is installed: what it rebuilds has the signed digest, or the file is fetched whole and
  ``fallback_reason`` says why.
- All downloads of the node together keep to the limiter; what a killed agent left is resumed.
- No network at all when every blob is here: after a reboot they are hashed, and that is all.
- A full disk, or budget, first evicts what nobody holds.

Leaves to others: judging (``trust``), when to download and when to try again (the agent, with ``backoff``).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from edgemodel.artifact import model_directory
from edgemodel.artifact.concurrency import concurrently
from edgemodel.artifact.credentials import Credentials
from edgemodel.artifact.delta_artifact import DeltaLayer, choose, find_deltas
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor, ModelFile
from edgemodel.artifact.pull import AT_ONCE
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.source import Source
from edgemodel.artifact.transfer import fetch
from edgemodel.artifact.trust import Verdict
from edgemodel.artifact.verify import Examined
from edgemodel.errors import Refused, Transient
from edgemodel.node.limiter import Limiter
from edgemodel.node.metered_source import LinkSpeed, MeteredSource
from edgemodel.node.patching import Apply, Patcher, apply_delta
from edgemodel.node.store import NodeStore

Result = TypeVar("Result")
Kind = Literal["Full", "Delta", "Imported", ""]
SMALLEST_FOR_DELTA = 256 << 10
"""Bytes of a file below which asking for deltas takes longer than fetching it."""


class Wanted(Protocol):
    """What an installation depends on beside the artifact."""

    @property
    def model_file(self) -> str | None:
        """The entry file; the only ``*.onnx`` when None."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one artifact is."""

    state: Literal["Downloading", "Verifying"]
    bytes: int
    """Of the artifact's files, here."""
    total: int
    kind: Kind


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Brought:
    """How an artifact came."""

    kind: Kind
    """Delta when at least one file was rebuilt by one; empty when everything was here."""
    downloaded: int
    """Bytes that came over the network for it, deltas included."""
    saved: int
    """Bytes that did not have to, thanks to deltas."""
    fallback_reason: str
    """Why a file that was to be rebuilt by a delta was fetched whole; empty when none was."""
    directory: Path


@dataclass(slots=True, eq=False)
class _Delivery:
    """One ``bring`` as it goes on."""

    reference: Reference
    source: Source
    report: Report
    total: int
    imported: bool
    link: Callable[[], float | None]
    """Bytes a second that the way to the source gives just now; None when nothing is known."""
    here: dict[Digest, int] = field(default_factory=dict)
    missing: bool = False
    """Whether a file has to come; none does when other models have brought them all."""
    downloaded: int = 0
    saved: int = 0
    deltas: int = 0
    fallbacks: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        if not self.missing:
            return ""
        if self.imported:
            return "Imported"
        return "Delta" if self.deltas else "Full"

    def tell(self, state: Literal["Downloading", "Verifying"]) -> None:
        self.report(Progress(state, min(sum(self.here.values()), self.total), self.total, self.kind))


class Transfers:
    """All downloads of one node.

    Args:
        store: where they go.
        connections: to registries.
        limiter: shared by all of them; its rate may be changed at any time.
        clock: seconds, never backwards.
        apply: rebuilds a file from a base and a delta.
    """

    def __init__(
        self,
        store: NodeStore,
        connections: Connections,
        *,
        limiter: Limiter | None = None,
        clock: Callable[[], float] = time.monotonic,
        apply: Apply = apply_delta,
    ) -> None:
        self.store = store
        self._clock = clock
        self._speeds: dict[str, LinkSpeed] = {}
        self.patcher = Patcher(store, apply, clock)
        self._connections = connections
        self._limiter = limiter or Limiter(clock=clock)
        self._turns: dict[Digest, _Turn] = {}

    async def bring(
        self,
        entry: Wanted,
        reference: Reference,
        examined: Examined,
        verdict: Verdict,
        credentials: Credentials | None,
        report: Report | None = None,
        *,
        source: Source | None = None,
    ) -> Brought:
        """See to it that a judged artifact is installed.

        Args:
            entry: what is wanted of it.
            reference: where it is.
            examined: the artifact.
            verdict: passed.
            credentials: for its registry.
            report: told of progress; cheap, as it is called often.
            source: take the blobs from there, a bundle, instead of from the registry.

        Raises:
            Refused: the verdict's refusal; ``DigestMismatch`` when bytes are wrong twice; ``MalformedArtifact``.
            Stalled: ``ModelFileNotFound``, ``AmbiguousModelFile``; told before the download where that can be.
            Transient: as ``transfer.fetch``; ``DiskFull`` when evicting did not help. One try: what came stays.
        """
        verdict.or_refused()
        there = await asyncio.to_thread(self.store.installed, examined.digest, entry.model_file)
        if there is not None:
            return Brought("", 0, 0, "", there)
        paths = model_directory.check_files(verdict.files)
        if all(file.packing == "raw" for file in verdict.files):
            model_directory.entry_file(paths, entry.model_file)
        await asyncio.to_thread(self.store.keep, examined)
        layers = list({file.descriptor.digest: file.descriptor for file in verdict.files}.values())
        # Reading from a file takes nothing from the link.
        limiter = self._limiter if source is None else Limiter()
        speed = self.speed(reference.registry) if source is None else LinkSpeed()
        delivery = _Delivery(
            reference.pinned(examined.digest),
            MeteredSource(source or Registry(self._connections, credentials), limiter, speed),
            report or (lambda _progress: None),
            sum(layer.size for layer in layers),
            source is not None,
            lambda: min((rate for rate in (speed.bytes_per_second, limiter.rate) if rate), default=None),
        )
        delivery.tell("Verifying")
        found = await concurrently([self._here(layer, delivery) for layer in layers], at_once=AT_ONCE)
        missing = [layer for layer, here in zip(layers, found, strict=True) if not here]
        if missing:
            delivery.missing = True
            delivery.tell("Downloading")
            await self._with_room(missing, verdict.files, lambda: self._download(missing, delivery))
        delivery.tell("Verifying")
        directory = await self._with_room(
            [], (), lambda: asyncio.to_thread(self.store.install, examined, verdict, entry.model_file)
        )
        return Brought(
            delivery.kind if delivery.downloaded else "",
            delivery.downloaded,
            delivery.saved,
            "; ".join(delivery.fallbacks),
            directory,
        )

    def speed(self, registry: str) -> LinkSpeed:
        """Return how fast the way to a registry is: one lies in the next room, another behind a modem."""
        return self._speeds.setdefault(registry, LinkSpeed(self._clock))

    # -- within -----------------------------------------------------------------------------------------------------

    async def _here(self, layer: Descriptor, delivery: _Delivery) -> bool:
        """Say whether a file is here; hashes it once in a boot."""
        blobs = self.store.blobs
        if not self.store.has(layer.digest):
            if not blobs.path(layer.digest).exists():
                return False
            async with self._turn(layer.digest, delivery), blobs.writing(layer) as writer:
                if writer is not None:
                    return False
        delivery.here[layer.digest] = layer.size
        return True

    async def _download(self, layers: list[Descriptor], delivery: _Delivery) -> None:
        deltas = await self._deltas(layers, delivery)
        await concurrently([self._file(layer, deltas, delivery) for layer in layers], at_once=AT_ONCE)

    async def _deltas(self, layers: list[Descriptor], delivery: _Delivery) -> tuple[DeltaLayer, ...]:
        digest = delivery.reference.digest
        wanted = [layer.digest for layer in layers if layer.size >= SMALLEST_FOR_DELTA]
        if not wanted or digest is None:
            return ()
        return await find_deltas(delivery.source, delivery.reference, digest, wanted)

    async def _file(self, layer: Descriptor, deltas: tuple[DeltaLayer, ...], delivery: _Delivery) -> None:
        async with self._turn(layer.digest, delivery) as show:
            if self.store.has(layer.digest):
                show(layer.size)
                return
            delta = self._chosen(layer, deltas, delivery)
            if delta is not None and await self._by_delta(layer, delta, delivery, show):
                return
            # Not in one statement: others add to the sum while this waits.
            came = await fetch(
                delivery.source, delivery.reference, layer, self.store.blobs, _counted(show, 1.0)
            )
            delivery.downloaded += came

    def _chosen(
        self, layer: Descriptor, deltas: tuple[DeltaLayer, ...], delivery: _Delivery
    ) -> DeltaLayer | None:
        choice = choose(
            layer,
            deltas,
            self.store.has,
            link_bytes_per_second=delivery.link(),
            apply_bytes_per_second=self.patcher.bytes_per_second,
        )
        if choice.delta is not None and choice.delta.descriptor.size >= self._missing(layer):
            return None  # an earlier try left less to fetch than the delta has
        return choice.delta

    async def _by_delta(
        self, layer: Descriptor, delta: DeltaLayer, delivery: _Delivery, show: Callable[[int], None]
    ) -> bool:
        try:
            came = await self.patcher.rebuild(
                delivery.source,
                delivery.reference,
                layer,
                delta,
                _counted(show, layer.size / delta.descriptor.size),
            )
        except (Refused, Transient) as error:
            if isinstance(error, Transient) and error.reason != "NotFound":
                raise  # the whole file would fare no better
            delivery.fallbacks.append(f"delta {delta.descriptor.digest.short}…: {error.message}")
            show(0)
            return False
        delivery.downloaded += came
        delivery.saved += layer.size - delta.descriptor.size
        delivery.deltas += 1
        show(layer.size)
        return True

    def _missing(self, layer: Descriptor) -> int:
        """Return how many bytes of a file an earlier try has left to fetch."""
        try:
            here = self.store.blobs.partial(layer.digest).stat().st_size
        except FileNotFoundError:
            here = 0
        return layer.size - min(here, layer.size)

    async def _with_room(
        self, layers: Sequence[Descriptor], files: Sequence[ModelFile], work: Callable[[], Awaitable[Result]]
    ) -> Result:
        """Do something that fills the disk; make room before it, and once more when that was not enough."""
        unpacked = sum(file.descriptor.size for file in files if file.packing != "raw")
        for last in (False, True):
            needed = sum(self._missing(layer) for layer in layers if not self.store.has(layer.digest))
            await asyncio.to_thread(self.store.make_room, needed + unpacked)
            try:
                return await work()
            except Transient as error:
                if error.reason != "DiskFull" or last:
                    raise
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def _turn(self, digest: Digest, delivery: _Delivery) -> AsyncIterator[Callable[[int], None]]:
        """Wait for one's turn at a blob, and meanwhile see how far whoever is at it has come."""
        turn = self._turns.setdefault(digest, _Turn(digest))
        turn.watchers.append(delivery)
        try:
            async with turn.lock:
                yield turn.show
        finally:
            turn.watchers.remove(delivery)
            if not turn.watchers:
                self._turns.pop(digest, None)


class _Turn:
    """Those who want one blob now; the one that holds the lock is at it."""

    def __init__(self, digest: Digest) -> None:
        self.lock = asyncio.Lock()
        self.watchers: list[_Delivery] = []
        self._digest = digest

    def show(self, here: int) -> None:
        for delivery in self.watchers:
            delivery.here[self._digest] = here
            delivery.tell("Downloading")


def _counted(show: Callable[[int], None], scale: float) -> Callable[[Descriptor, int], None]:
    """Return what ``fetch`` reports differences to; they are shown as a sum, in bytes of the whole file."""
    here = 0

    def progress(_descriptor: Descriptor, more: int) -> None:
        nonlocal here
        here += more
        show(int(here * scale))

    return progress
