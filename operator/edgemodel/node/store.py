"""The node's store: every model of the node in one place, each byte once, nothing unverified under a final name.

::

    <root>/                          0700
    <root>/blobs/sha256/<hex>        whole blobs; `artifact.store`
    <root>/verified/<hex>            which of them were hashed since the node started; `verified`
    <root>/artifacts/<hex>.json      manifest and signatures as they came, to be judged again without a network;
                                     its time of change is when the model was last used
    <root>/models/<key>/             what pods mount; `installed`
    <root>/installed/<key>.json      what was verified in it
    <root>/aside/, <root>/staging/   on their way out, on their way in
    <root>/lock                      held by whoever adds or removes models, for as long as that takes

Promises
- Killed at any instruction, it holds the old or the new; ``collect`` removes what was left on the way.
- ``installed`` says yes only to what was hashed since the node started, and costs a few ``stat``: no lock, no hashing.
- An artifact is referred to before its first byte comes (``keep``), so that no collection takes what is on its way.
- What is pinned, mounted or expected is never evicted. A disk that is full, or a budget, is answered by evicting what was
  used longest ago, and by ``DiskFull``, which names what would help, when that is not enough.

Leaves to others: bytes from the network (``transfer``), what is pinned and mounted (the agent), when to look for rotten
bits (``recheck``).
"""

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgemodel.artifact import model_directory
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.model_directory import Description
from edgemodel.artifact.store import disk_errors, disk_full
from edgemodel.artifact.trust import Verdict
from edgemodel.artifact.verify import Examined
from edgemodel.errors import Transient
from edgemodel.node import collect as collecting
from edgemodel.node.installed import Record, examine_directory, key_of, make_directory
from edgemodel.node.small_file import read_small, write_small
from edgemodel.node.usage import Usage, measure
from edgemodel.node.verified import VerifiedBlobs, this_boot

GRACE_SECONDS = 3600.0
"""How long what nobody refers to is kept: another process may be about to refer to it, a restarted one to resume it."""


@dataclass(frozen=True, slots=True)
class Held:
    """What must not be evicted."""

    pinned: Collection[Digest] = frozenset()
    """Manifests of the versions this node is to hold."""
    mounted: Collection[Path] = frozenset()
    """Model directories that pods have mounted."""


class NodeStore:
    """See the module's docstring. Its methods block; all but ``installed``, ``has`` and ``examined`` belong into a thread.

    Args:
        root: the directory; made when missing.
        budget: bytes the store may take; None for what keeps the disk, with everything else on it, at 80 % or less:
            below that the kubelet neither removes images (85 %) nor evicts pods.
        held: asked before anything is evicted to make room; None: nothing is evicted then.
        boot: names the time since the node started; the kernel's own by default.
        grace: see ``GRACE_SECONDS``.
    """

    def __init__(
        self,
        root: Path,
        *,
        budget: int | None = None,
        held: Callable[[], Held] | None = None,
        boot: str | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.root = root
        self.budget = budget
        self.held = held
        self.grace = grace
        with disk_errors(root, 0):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            root.chmod(0o700)
        self.blobs = VerifiedBlobs(root, boot or this_boot())
        self._expected: Counter[Digest] = Counter()

    # -- asking -----------------------------------------------------------------------------------------------------

    def has(self, digest: Digest) -> bool:
        """Say whether a blob is here, whole, and was hashed since the node started. Cheap."""
        return self.blobs.holds(digest) is not None

    def installed(self, digest: Digest, model_file: str | None = None) -> Path | None:
        """Return the directory of a model that is here, whole and verified since the node started. Cheap; no hashing.

        After a reboot it is None until ``install`` (or ``Transfers.bring``, without a network) has hashed it again.
        """
        directory = self.directory(digest, model_file)
        record = Record.read(self.record(directory.name))
        return directory if record is not None and record.stands(directory, self.blobs) else None

    def examined(self, digest: Digest) -> Examined | None:
        """Return manifest and signatures of an artifact as they came; as untrusted as then."""
        try:
            found = Examined.from_json(read_small(self._artifact(digest)))
            whole = found.reference.digest == digest == Digest.of(found.manifest_bytes)
        except (OSError, ValueError):
            return None
        return found if whole else None

    def artifacts(self) -> list[Digest]:
        """Return the artifacts that are here or on their way, those used longest ago first."""
        return collecting.artifacts(self)

    def directories(self, digest: Digest) -> list[Path]:
        """Return the directories of a model: one for each entry file that was named; verified or not."""
        return [self.root / "models" / key for key in collecting.keys(self, digest)]

    def usage(self) -> Usage:
        """Return what the store takes, may take, and what the disk has left."""
        return measure(self.root, self.budget)

    def used(self) -> int:
        """Return what the store takes in bytes."""
        return self.usage().used

    # -- adding -----------------------------------------------------------------------------------------------------

    def keep(self, examined: Examined) -> None:
        """Keep manifest and signatures, and with them every blob of the artifact, from now on.

        Raises:
            Transient: ``DiskFull``.
        """
        with self.alone():
            write_small(self._artifact(examined.digest), examined.to_json().encode(), durable=True)

    def install(self, examined: Examined, verdict: Verdict, model_file: str | None = None) -> Path:
        """Make the directory of a judged artifact, all of whose blobs are here; return it, verified.

        What is there already is looked through, once in a boot, and left as it is when it is right: pods that have it
        mounted keep it, and a node that was rebooted needs no registry.

        Raises:
            Refused: the verdict's refusal; ``MalformedArtifact``.
            Stalled: ``ModelFileNotFound``, ``AmbiguousModelFile``.
            Transient: ``DiskFull``; ``TransferFailed`` when a blob is not here.
        """
        verdict.or_refused()
        if verdict.digest != examined.digest:
            raise ValueError(f"the verdict is about {verdict.digest}, not {examined.digest}")
        model_directory.check_files(verdict.files)
        self.keep(examined)
        with self.alone():
            if (there := self.installed(examined.digest, model_file)) is not None:
                return there
            for file in verdict.files:
                if not self.blobs.intact(file.descriptor):
                    raise Transient("TransferFailed", f"blob {file.descriptor.digest} is not here; fetch it")
            directory = self.directory(examined.digest, model_file)
            description = _description(examined, verdict)
            record = examine_directory(directory, verdict.files, model_file, description, self.blobs)
            if record is None:
                collecting.take_down(self, directory.name)
                record = make_directory(directory, verdict.files, model_file, description, self.blobs)
            record.write(self.record(directory.name))
        return directory

    def touch(self, digest: Digest) -> None:
        """Note that a model is in use: what was used longest ago is evicted first."""
        try:
            os.utime(self._artifact(digest))
        except FileNotFoundError:
            return

    @contextmanager
    def expecting(self, *digests: Digest) -> Iterator[None]:
        """Keep blobs that no artifact refers to, deltas on their way, from being collected meanwhile."""
        self._expected.update(digests)
        try:
            yield
        finally:
            self._expected.subtract(digests)

    def make_room(self, needed: int) -> None:
        """See to it that so many more bytes fit, by evicting what nobody holds.

        Raises:
            Transient: ``DiskFull``; says what would help.
        """
        usage = self.usage()
        if usage.fits(needed):
            return
        held = self.held() if self.held is not None else None
        if held is not None:
            self.collect(held.pinned, held.mounted, need=needed)
            usage = self.usage()
            if usage.fits(needed):
                return
        if needed > usage.free:
            raise disk_full(self.root, needed, usage.free)
        raise Transient(
            "DiskFull",
            f"{needed} more bytes are needed below {self.root}; {usage.used} of its budget of {usage.budget} bytes are "
            "taken by models that are in use or wanted here; raise the budget, clear the disk of other things, or let "
            "the node hold fewer models",
        )

    # -- removing ---------------------------------------------------------------------------------------------------

    def collect(
        self, pinned: Collection[Digest], mounted: Collection[Path], *, need: int = 0
    ) -> list[Digest]:
        """Remove what was left on the way, then, over budget, the models that were used longest ago; return these.

        Args:
            pinned: manifests that are kept, whatever they take.
            mounted: model directories that pods have mounted, wherever these are by now; kept, too.
            need: bytes that must fit as well.
        """
        with self.alone(), disk_errors(self.root, 0):
            return collecting.collect(self, Held(frozenset(pinned), frozenset(mounted)), need)

    def forget(self, digest: Digest) -> None:
        """Take a model down, whoever wants it; its blobs go with the next ``collect`` unless others have them.

        Pods that have it mounted keep what they have.
        """
        with self.alone(), disk_errors(self.root, 0):
            for key in collecting.keys(self, digest):
                collecting.take_down(self, key)
            self._artifact(digest).unlink(missing_ok=True)

    def condemn(self, blobs: Collection[Digest]) -> list[Digest]:
        """Remove blobs whose bytes are wrong and take down the models made of them; return the models' manifests.

        From the first step on nothing mounts them. The next ``Transfers.bring`` makes new files under the same names; pods
        that have the old ones mapped keep those until they are restarted.
        """
        with self.alone(), disk_errors(self.root, 0):
            return collecting.condemn(self, blobs)

    def drop(self, digest: Digest) -> None:
        """Remove a blob, or its beginning, that no artifact refers to: a delta that was applied."""
        with self.alone(), disk_errors(self.root, 0):
            collecting.drop(self, digest)

    # -- within the package -----------------------------------------------------------------------------------------

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the store's lock against threads and processes alike; the kernel lets go of it when a process dies."""
        with disk_errors(self.root, 0):
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def directory(self, digest: Digest, model_file: str | None) -> Path:
        """Return where a model's directory is, or would be."""
        return self.root / "models" / key_of(digest, model_file)

    def record(self, key: str) -> Path:
        """Return where it is written what was verified in a directory."""
        return self.root / "installed" / f"{key}.json"

    def expected(self, digest: Digest) -> bool:
        """Say whether somebody in this process is at work on a blob."""
        return self._expected[digest] > 0

    def _artifact(self, digest: Digest) -> Path:
        return self.root / "artifacts" / f"{digest.hex}.json"


def _description(examined: Examined, verdict: Verdict) -> Description:
    """Say what the artifact says of itself: whoever serves it under another name passes that to the server."""
    return Description(
        name=verdict.release.name or examined.reference.repository.rpartition("/")[2],
        version=verdict.release.version or "",
        digest=examined.digest,
        file="",
    )
