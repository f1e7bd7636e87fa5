"""What the driver and the store do for pods, told to an agent that is killed in the middle; run by ``test_mount_points``.

::

    unshare --mount python -m tests.crash.mount_story <folder> detached|staged

As ``story``, with real mounts: the agent has a mount namespace of its own, as in its container, and the kubelet's directory
is shared between that and this one. ``staged`` mounts as on a kernel before Linux 5.12. Steps are what changes the disk and
every call by which something is mounted or unmounted. After each kill, what pods have is looked at from outside; then
another agent is told the whole story, as the kubelet asks again for what it got no answer to.
"""

import asyncio
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Manifest, model_files
from edgemodel.errors import EdgeModelError
from edgemodel.node.csi import mounts
from edgemodel.node.csi.server import endpoints, serve
from edgemodel.node.store import NodeStore
from tests.crash.models import version
from tests.crash.story import Steps, forked, left
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import POLICY
from tests.unit.node.csi.kubelet import Shelf, publish, request, target, unpublish
from tests.unit.node.csi.mount_scenarios import BIND, SHARED, mount
from tests.unit.node.node_world import node

NEW_NAMESPACE = 0x20000  # CLONE_NEWNS, linux/sched.h
DETACH = 2  # MNT_DETACH, linux/mount.h
WEIGHTS = {"old": b"old weights " * 100, "new": b"new weights " * 100}
PODS = {"old": "pod-1", "new": "pod-2"}


class Kernel:
    """The C library as ``mounts`` uses it, each call a step."""

    def __init__(self, steps: Steps, real: ctypes.CDLL, *, detached: bool) -> None:
        self._steps, self._real, self._detached = steps, real, detached

    def syscall(self, *arguments: Any) -> int:
        """open_tree, mount_setattr or move_mount; on an older kernel there is none of them."""
        if not self._detached:
            ctypes.set_errno(errno.ENOSYS)
            return -1
        self._steps.step("syscall")
        return int(self._real.syscall(*arguments))

    def mount(self, *arguments: Any) -> int:
        self._steps.step("mount")
        return int(self._real.mount(*arguments))

    def umount2(self, *arguments: Any) -> int:
        self._steps.step("umount")
        return int(self._real.umount2(*arguments))


class Place:
    """One store and one kubelet's directory, and what must be true of them."""

    def __init__(self, root: Path, template: Path, digests: dict[str, Digest]) -> None:
        self.root, self.digests = root, digests
        self.store, self.kubelet = root / "store", root / "kubelet"
        self.pods = {name: target(self.kubelet, uid, make=False) for name, uid in PODS.items()}
        root.mkdir()
        subprocess.run(["cp", "-a", template, self.store], check=True)
        (self.kubelet / "plugins_registry").mkdir(parents=True)
        for path in self.pods.values():
            path.parent.mkdir(parents=True)
        mount(self.kubelet, self.kubelet, BIND)
        mount(None, self.kubelet, SHARED)

    def mounted(self) -> list[mounts.Mount]:
        """What is mounted in pods."""
        return [one for one in mounts.table() if Path(one.point).is_relative_to(self.kubelet / "pods")]

    def wrongs(self) -> list[str]:
        """Say what pods have that they must not."""
        found = []
        for one in self.mounted():
            names = [name for name, path in self.pods.items() if one.point == str(path)]
            if not one.options >= mounts.FLAGS:
                found.append(f"{one.point} is mounted with {sorted(one.options)}")
            if not names:
                found.append(f"{one.point} is mounted, and no pod's volume")
            elif (Path(one.point) / "weights" / "w.data").read_bytes() != WEIGHTS[names[0]]:
                found.append(f"{one.point} has other bytes")
        if len({one.point for one in self.mounted()}) != len(self.mounted()):
            found.append("two mounts at one place")
        return found

    def leftovers(self) -> list[str]:
        """Every path below the root, and what is mounted there still."""
        return left(self.root) + [f"mount {one.point}" for one in self.mounted()]

    def close(self) -> None:
        """Take down what was mounted."""
        libc = ctypes.CDLL(None)
        for one in reversed([one for one in mounts.table() if Path(one.point).is_relative_to(self.root)]):
            libc.umount2(os.fsencode(one.point), DETACH)


def agent(place: Place, fatal: int, *, detached: bool, log: Path | None = None) -> None:
    """Be an agent that dies at a step; 0 for one that tells the story to its end."""
    if ctypes.CDLL(None).unshare(NEW_NAMESPACE):
        raise OSError("unshare")
    # Such as a container has: gone with it.
    tempfile.tempdir = tempfile.mkdtemp(prefix="em-agent-", dir=place.root.parent / "tmp")
    store = NodeStore(place.store, boot="first", grace=0.0)
    shelf = Shelf()
    for name, digest in place.digests.items():
        examined = store.examined(digest)
        if examined is None:
            continue
        try:
            directory = store.install(examined, examined.judge([POLICY]))
        except EdgeModelError:
            continue  # evicted or condemned by an earlier one, and there is no registry
        shelf.models["vision", name, digest] = directory
    steps = Steps(fatal)
    steps.watch()
    mounts._libc = Kernel(steps, mounts._libc, detached=detached)  # type: ignore[assignment]
    asyncio.run(tell(place, store, shelf))
    if log is not None:
        taken = list(steps.taken)
        log.write_text(json.dumps(taken))


async def tell(place: Place, store: NodeStore, shelf: Shelf) -> None:
    """Mount two models in pods, evict one and condemn the other while they are mounted, take the pods away, evict."""
    driver = await serve(
        shelf,
        kubelet_dir=place.kubelet,
        node_name="edge-1",
        models=store.root / "models",
        aside=store.root / "aside",
        look=3600.0,
    )
    socket = endpoints(place.kubelet)[0]
    old, new = place.digests["old"], place.digests["new"]

    async def ask(name: str) -> None:
        if ("vision", name, place.digests[name]) in shelf.models:
            context = {"model": name, "digest": str(place.digests[name])}
            await publish(socket, request(place.pods[name], PODS[name], context=context))
            assert [one.point for one in place.mounted()].count(str(place.pods[name])) == 1
            assert place.wrongs() == [], place.wrongs()

    def collect() -> list[Digest]:
        return store.collect({new}, driver.mounted())

    for name in ("old", "old", "new"):
        await ask(name)
    store.budget = 1
    if ("vision", "old", old) in shelf.models:
        assert collect() == [], "evicted under a pod"
    assert place.wrongs() == [], place.wrongs()
    await unpublish(socket, place.pods["old"])
    await unpublish(socket, place.pods["old"])
    collect()
    assert store.installed(old) is None
    examined = store.examined(new)
    assert examined is not None
    weights = next(
        file for file in model_files(Manifest.parse(examined.manifest_bytes)) if file.path == "weights/w.data"
    )
    store.condemn([weights.descriptor.digest])
    assert store.installed(new) is None
    collect()
    assert place.wrongs() == [], place.wrongs()
    await unpublish(socket, place.pods["new"])
    collect()
    await driver.close()


async def prepare(root: Path) -> dict[str, Digest]:
    """Make a store with both models."""
    async with RegistrySimulator() as simulator, node(simulator, root, grace=0.0) as one:
        made = {}
        for number, (name, content) in enumerate(WEIGHTS.items(), 1):
            published = version(simulator, number, content)
            await one.bring(published)
            made[name] = published.manifest.digest
        return made


def main(folder: Path, *, detached: bool) -> dict[str, Any]:
    """Tell the story once to its end, and once for each of its steps."""
    (folder / "tmp").mkdir()
    log = folder / "steps"
    digests = asyncio.run(prepare(folder / "template"))

    def in_a_place(name: str, act: Callable[[Place], None]) -> None:
        place = Place(folder / name, folder / "template", digests)
        try:
            act(place)
        finally:
            place.close()

    problems: list[str] = []
    clean: list[str] = []

    def whole(place: Place) -> None:
        if forked(lambda: agent(place, 0, detached=detached, log=log)) != 0:
            problems.append("the story cannot be told at all")
        clean.extend(place.leftovers())

    in_a_place("clean", whole)
    if problems:
        return {"steps": [], "killed": 0, "problems": problems}
    killed = []

    def told_again(place: Place, number: int) -> None:
        ended = forked(lambda: agent(place, number, detached=detached))
        killed.append(ended == -signal.SIGKILL)
        if ended not in (0, -signal.SIGKILL):
            problems.append(f"step {number}: ended with {ended} before it")
        problems.extend(f"step {number}: {wrong}" for wrong in place.wrongs())
        if forked(lambda: agent(place, 0, detached=detached)) != 0:
            problems.append(f"step {number}: it does not recover")
        if (found := place.leftovers()) != clean:
            problems.append(f"step {number}: leaves {sorted(set(found) ^ set(clean))}")

    steps = json.loads(log.read_text())
    for number in range(1, len(steps) + 1):
        in_a_place(str(number), lambda place, number=number: told_again(place, number))  # type: ignore[misc]
    return {"steps": steps, "killed": sum(killed), "problems": problems}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), detached=sys.argv[2] == "detached")))
