"""A node whose disk fills up in the middle of a download; run by ``test_full_disk`` in a mount namespace of its own.

::

    unshare --map-root-user --mount python -m tests.crash.full_disk <folder> <registry> <policy.json> <old> <new>

The disk is a tmpfs of a few megabytes: what it answers is the kernel's own ENOSPC.
"""

import asyncio
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgemodel.artifact.policy import Policy
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_settings import HostSettings, RegistrySettings
from edgemodel.artifact.verify import examine
from edgemodel.errors import Transient
from edgemodel.node.store import Held, NodeStore
from edgemodel.node.transfer import Progress, Transfers
from tests.unit.node.node_world import Wish, apply_suffix

DISK = 9 << 20
LEFT = 100_000
"""Bytes that whoever fills the disk leaves."""


class Disk:
    """A small disk, and somebody else who fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "somebody-elses"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "full-disk-test", str(folder)], check=True
        )

    def fill(self) -> None:
        """Take all there is but ``LEFT``."""
        status = os.statvfs(self.folder)
        handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT)
        try:
            os.posix_fallocate(handle, 0, status.f_bavail * status.f_frsize - LEFT)
        finally:
            os.close(handle)

    def clear(self) -> None:
        """Give it back."""
        self._ballast.unlink()


async def told(folder: Path, registry: str, policy: Policy, old: Reference, new: Reference) -> dict[str, Any]:
    """Fill the disk under the new version's download, once with nothing to evict and once with the old version."""
    disk = Disk(folder)
    settings = RegistrySettings({registry: HostSettings(plain_http=True)})
    full: list[int] = []
    real_write = os.write

    def write(handle: int, content: Any) -> int:
        try:
            return real_write(handle, content)
        except OSError as error:
            full.append(error.errno or 0)
            raise

    os.write = write
    async with Connections(settings) as connections:
        store = NodeStore(folder / "store", budget=DISK, boot="first", grace=0.0)
        transfers = Transfers(store, connections, apply=apply_suffix)

        async def bring(reference: Reference, *, until: int | None = None) -> int:
            examined = await examine(Registry(connections), reference)
            filled = False

            def report(progress: Progress) -> None:
                nonlocal filled
                if until is not None and progress.bytes > until and not filled:
                    filled = True
                    disk.fill()

            verdict = examined.judge([policy])
            brought = await transfers.bring(Wish(), reference, examined, verdict, None, report)
            return brought.downloaded

        assert old.digest is not None
        assert new.digest is not None
        await bring(old)
        pinned = Held(frozenset({old.digest, new.digest}))
        store.held = lambda: pinned
        refused = ""
        try:
            await bring(new, until=3 << 19)
        except Transient as error:
            refused = str(error)
        answer: dict[str, Any] = {
            "enospc": full.count(errno.ENOSPC),
            "refused": refused,
            "served": store.installed(old.digest) is not None,
        }
        disk.clear()
        answer["resumed"] = await bring(new)
        store.forget(new.digest)
        store.collect({old.digest}, set())
        # Now the old version is wanted no more.
        full.clear()
        store.held = lambda: Held(frozenset({new.digest}))
        await bring(new, until=3 << 19)
        answer["enospc again"] = full.count(errno.ENOSPC)
        answer["evicted"] = store.installed(old.digest) is None
        answer["installed"] = store.installed(new.digest) is not None
    return answer


if __name__ == "__main__":
    where, host, policy_file, *references = sys.argv[1:]
    before, after = (Reference.parse(text) for text in references)
    print(
        json.dumps(
            asyncio.run(
                told(Path(where), host, Policy.from_json(Path(policy_file).read_bytes()), before, after)
            )
        )
    )
