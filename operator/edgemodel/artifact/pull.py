"""Verified model into a directory: examine, judge, download, install, in this order and never in another.

Promises: no layer is asked for before the artifact passed its policies; every file in the directory has the digest that the
signed manifest says; memory does not grow with the model; a run that was interrupted is resumed; a directory that is whole
already, and whose signatures still pass, is left as it is, without a network; one pull at a time works on a
directory, others wait. Leaves to others: the steps themselves
(``verify``, ``trust``, ``transfer``, ``model_directory``).
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edgemodel.artifact import model_directory
from edgemodel.artifact.concurrency import concurrently
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import ModelFile
from edgemodel.artifact.model_directory import PRIVATE, Description
from edgemodel.artifact.policy import Policy
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.source import Source
from edgemodel.artifact.store import Store, disk_errors
from edgemodel.artifact.transfer import Progress, fetch
from edgemodel.artifact.trust import Verdict
from edgemodel.artifact.verify import Examined, examine

AT_ONCE = 3
"""Layers that are downloaded at the same time: hides round trips, and leaves a slow line to few."""
EXAMINED = "examined.json"
LOCK = "lock"
LOCK_POLL_SECONDS = 0.05
"""flock cannot be awaited."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a judgement and an installation depend on beside the artifact."""

    policies: Sequence[Policy]
    name: str = ""
    """Name of the model; the signed one, or the repository's last component, when empty."""
    version: str = ""
    """Version for people; the signed one when empty."""
    model_file: str | None = None
    """Entry file; the only ``*.onnx`` when None."""
    mark: int | None = None
    """Highest sequence that was ever active; see ``trust.judge``."""
    known_good: frozenset[Digest] = frozenset()
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A model directory and what is known of it."""

    reference: Reference
    """Pinned."""
    directory: Path
    description: Description
    verdict: Verdict
    downloaded: int
    """Bytes that came over the network for it; 0 when it was here."""


async def pull(
    registry: Source,
    reference: Reference,
    directory: Path,
    wish: Wish,
    *,
    durable: bool = True,
    progress: Progress | None = None,
) -> PulledModel:
    """Make ``directory`` hold the model that ``reference`` names, and nothing else.

    Args:
        registry: where to pull from.
        reference: by tag or digest.
        directory: made when missing; what is in it is replaced.
        wish: policies and what else matters.
        durable: flush to disk before saying that it is done.
        progress: called as bytes arrive.

    Raises:
        Refused: the artifact does not pass; nothing was downloaded but its manifest and signatures, unless a layer's
            bytes are wrong (``DigestMismatch``).
        Stalled: ``AmbiguousModelFile``, ``ModelFileNotFound``.
        Transient: ``RegistryUnreachable``, ``AuthenticationFailed``, ``NotFound``, ``TransferFailed``, ``DiskFull``.
    """
    if reference.digest is not None and (directory / PRIVATE).is_dir():
        async with _alone(directory):
            here = await asyncio.to_thread(_whole, directory, reference, wish)
        if here is not None:
            return here
    examined = await examine(registry, reference)
    verdict = _judge(examined, wish)
    paths = model_directory.check_files(verdict.files)
    if all(file.packing == "raw" for file in verdict.files):
        model_directory.entry_file(paths, wish.model_file)  # told before the download, not after it
    store = Store(directory / PRIVATE, durable=durable)
    async with _alone(directory):
        await asyncio.to_thread(_adopt, directory, verdict.files, store)
        arrived = await download(registry, examined.reference, verdict.files, store, progress)
        description = await asyncio.to_thread(_install, directory, examined, verdict, wish, store)
    return PulledModel(examined.reference, directory, description, verdict, arrived)


@asynccontextmanager
async def _alone(directory: Path) -> AsyncIterator[None]:
    """Hold the directory's lock: two that fill it at once would clear each other's files and blobs.

    The kernel lets go of it when a process dies.
    """
    with disk_errors(directory, 0):
        (directory / PRIVATE).mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(directory / PRIVATE / LOCK, flags, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


async def download(
    registry: Source,
    reference: Reference,
    files: Sequence[ModelFile],
    store: Store,
    progress: Progress | None = None,
) -> int:
    """Bring the layers of a judged artifact into a store; return how many bytes came for it.

    Raises:
        Refused, Transient: as ``transfer.fetch``.
    """
    layers = {file.descriptor.digest: file.descriptor for file in files}
    arrived = await concurrently(
        [fetch(registry, reference, layer, store, progress) for layer in layers.values()], at_once=AT_ONCE
    )
    return sum(arrived)


def _judge(examined: Examined, wish: Wish) -> Verdict:
    verdict = examined.judge(wish.policies, mark=wish.mark, known_good=wish.known_good, now=wish.now)
    return verdict.or_refused()


def _whole(directory: Path, reference: Reference, wish: Wish) -> PulledModel | None:
    """Return the model when the directory holds it whole and it passes under the present policies, by what is on disk.

    A refusal is not the answer here: the registry may have more signatures by now.
    """
    if model_directory.described(directory) != reference.digest:
        return None
    try:
        examined = Examined.from_json((directory / PRIVATE / EXAMINED).read_bytes())
    except (OSError, ValueError):
        return None
    if examined.reference != reference.pinned(examined.digest) or examined.digest != reference.digest:
        return None
    verdict = examined.judge(wish.policies, mark=wish.mark, known_good=wish.known_good, now=wish.now)
    if verdict.refusal is not None or not model_directory.holds(directory, verdict.files):
        return None
    entry = model_directory.entry_file([file.path for file in verdict.files], wish.model_file)
    description = _description(examined, verdict, wish, entry)
    model_directory.finish(directory, description, durable=False)
    return PulledModel(examined.reference, directory, description, verdict, 0)


def _adopt(directory: Path, files: Sequence[ModelFile], store: Store) -> None:
    """Take files that an earlier run left into the store; they are hashed there before anything believes them."""
    for file in files:
        if file.packing == "raw":
            store.adopt(directory / file.path, file.descriptor)


def _install(directory: Path, examined: Examined, verdict: Verdict, wish: Wish, store: Store) -> Description:
    model_directory.clear(directory)
    paths = model_directory.fill(directory, verdict.files, store)
    description = _description(examined, verdict, wish, model_directory.entry_file(paths, wish.model_file))
    with disk_errors(directory, 0):
        (directory / PRIVATE / EXAMINED).write_text(examined.to_json())
        # The files keep the bytes; the blobs' own names are only of use while they arrive.
        shutil.rmtree(directory / PRIVATE / "blobs")
    model_directory.finish(directory, description, durable=store.durable)
    return description


def _description(examined: Examined, verdict: Verdict, wish: Wish, entry: str) -> Description:
    return Description(
        name=wish.name or verdict.release.name or examined.reference.repository.rpartition("/")[2],
        version=wish.version or verdict.release.version or "",
        digest=examined.digest,
        file=entry,
    )
