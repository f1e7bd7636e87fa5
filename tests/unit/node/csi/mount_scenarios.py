"""What ``test_mounts`` runs, each in a fresh mount namespace: ``python -m tests.unit.node.csi.mount_scenarios NAME``."""

import asyncio
import ctypes
import inspect
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from edgemodel.node.csi import mounts
from edgemodel.node.csi.server import CsiServer, endpoints, serve
from tests.unit.node.csi import kubelet
from tests.unit.node.csi.kubelet import DIGEST, Shelf, publish, refusal, request, target, unpublish

Scenario = Callable[["World"], Awaitable[None]]
_scenarios: dict[str, Scenario] = {}
_libc = ctypes.CDLL(None, use_errno=True)
BIND, REC, PRIVATE, SHARED = 4096, 16384, 1 << 18, 1 << 20


def scenario(function: Scenario) -> Scenario:
    _scenarios[function.__name__] = function
    return function


def names() -> list[str]:
    return list(_scenarios)


def mount(source: Path | None, where: Path, flags: int, kind: str | None = None) -> None:
    """Call mount(2) plainly."""
    given = [None if one is None else os.fsencode(one) for one in (source, where, kind)]
    if _libc.mount(*given, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(where))


def mounted_at(path: Path) -> list[mounts.Mount]:
    return [one for one in mounts.table() if one.point == str(path)]


async def until(look: Callable[[], object], what: str) -> None:
    for _ in range(500):
        if look():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{what}: not within 5 s")


async def run_program(*command: str) -> int:
    return await (await asyncio.create_subprocess_exec(*command)).wait()


class World:
    """A kubelet's directory, shared as the kubelet's is, a store with one model, and a driver."""

    def __init__(self, root: Path) -> None:
        self.kubelet, self.models = kubelet.directories(root)
        mount(self.kubelet, self.kubelet, BIND)
        mount(None, self.kubelet, SHARED)
        self.model = kubelet.model(self.models)
        self.shelf = Shelf()
        self.shelf.models["vision", "detector", DIGEST] = self.model
        self.socket = endpoints(self.kubelet)[0]
        self.target = target(self.kubelet)
        self.driver: CsiServer

    async def start(self) -> None:
        self.driver = await serve(
            self.shelf, kubelet_dir=self.kubelet, node_name="edge-1", models=self.models
        )


@scenario
async def a_pod_gets_its_model_and_can_change_nothing(world: World) -> None:
    """Published twice: one mount, read-only. Unpublished twice: nothing is left."""
    for _ in range(2):
        await publish(world.socket, request(world.target))
    (only,) = mounted_at(world.target)
    assert only.options >= mounts.FLAGS
    assert (world.target / "model.onnx").read_bytes() == b"weights"
    weights = world.target / "model.onnx"
    new = world.target / "new"
    for change in (
        partial(weights.write_bytes, b"other"),
        new.touch,
        weights.unlink,
        partial(weights.chmod, 0o777),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            change()
    assert world.driver.mounted() == {world.model}
    for _ in range(2):
        await unpublish(world.socket, world.target)
    assert not world.target.exists()
    assert world.driver.mounted() == set()
    assert (world.model / "model.onnx").read_bytes() == b"weights"


@scenario
async def a_mount_takes_milliseconds(world: World) -> None:
    """A model that is there is mounted well within 50 ms, connection included."""
    spent = []
    for number in range(20):
        path = target(world.kubelet, f"pod-{number}")
        began = time.perf_counter()
        await publish(world.socket, request(path, f"pod-{number}"))
        spent.append(time.perf_counter() - began)
    print(f"publish: median {sorted(spent)[10] * 1000:.1f} ms, worst {max(spent) * 1000:.1f} ms")
    assert sorted(spent)[10] < 0.05


@scenario
async def both_ways_of_mounting_end_alike(world: World) -> None:
    """With and without the system calls of Linux 5.12; and the older way leaves nothing of its own behind."""
    for detached in (True, False):
        before = len(mounts.table())
        world.target.mkdir(exist_ok=True)
        assert mounts.bind(world.model, world.target, detached=detached)
        assert not mounts.bind(world.model, world.target, detached=detached)
        (only,) = mounted_at(world.target)
        assert only.options >= mounts.FLAGS
        assert len(mounts.table()) == before + 1
        assert mounts.unmount(world.target)
        assert not mounts.unmount(world.target)
    left = map(str, mounts.table())
    assert not [one for one in left if "edgemodel-mount-" in one]
    assert (world.model / "model.onnx").exists()


@scenario
async def other_namespaces_get_it_read_only_too(world: World) -> None:
    """The kubelet and the pods live in another mount namespace: the copy that propagates there has every flag.

    What mount(8) does, bind and then remount, leaves that copy writable; that is why it is not done so.
    """
    world.target.mkdir()
    plain = f"mount --bind {world.model} {world.target} && mount -o remount,bind,ro {world.target}"
    assert await run_program("unshare", "--mount", "--propagation", "unchanged", "sh", "-c", plain) == 0
    (only,) = mounted_at(world.target)
    assert "ro" not in only.options
    assert mounts.unmount(world.target)
    for detached in (True, False):
        code = (
            "from pathlib import Path; from edgemodel.node.csi import mounts;"
            f"mounts.bind(Path({str(world.model)!r}), Path({str(world.target)!r}), detached={detached})"
        )
        world.target.mkdir(exist_ok=True)
        apart = ("unshare", "--mount", "--propagation", "unchanged", sys.executable, "-c", code)
        assert await run_program(*apart) == 0
        (only,) = mounted_at(world.target)
        assert only.options >= mounts.FLAGS, only
        assert mounts.unmount(world.target)


@scenario
async def a_half_made_mount_is_finished(world: World) -> None:
    """A bind without its flags, as a crash between the two steps of a plain remount would leave it, is replaced."""
    world.target.mkdir()
    mount(world.model, world.target, BIND)
    (world.target / "probe").touch()  # it is writable
    (world.target / "probe").unlink()
    await publish(world.socket, request(world.target))
    (only,) = mounted_at(world.target)
    assert only.options >= mounts.FLAGS


@scenario
async def whatever_else_is_mounted_there_goes(world: World) -> None:
    """Another model, a file system, two on top of each other: after the call the right one is there, once."""
    other = kubelet.model(world.models, "b" * 64)
    world.target.mkdir()
    mounts.bind(other, world.target)
    mount(Path("tmpfs"), world.target, 0, "tmpfs")
    assert len(mounted_at(world.target)) == 2
    await publish(world.socket, request(world.target))
    assert len(mounted_at(world.target)) == 1
    assert world.driver.mounted() == {world.model}


@scenario
async def a_model_that_was_installed_anew_is_mounted_anew(world: World) -> None:
    """The mount of a directory that is gone is not taken for the one of the same name that came after it."""
    await publish(world.socket, request(world.target))
    (world.model / "model.onnx").unlink()
    world.model.rmdir()
    assert world.driver.mounted() == set()
    kubelet.model(world.models)
    await publish(world.socket, request(world.target))
    assert (world.target / "model.onnx").exists()
    assert len(mounted_at(world.target)) == 1


@scenario
async def mounts_outlive_the_driver(world: World) -> None:
    """Killed and started again, it knows what is mounted, leaves it alone, and can take it away."""
    await world.driver.close()
    code = (
        "import asyncio, os, signal; from pathlib import Path; from edgemodel.node.csi.server import serve, endpoints\n"
        "from tests.unit.node.csi.kubelet import Shelf, request, publish, DIGEST\n"
        "async def main(kubelet, models, model, target):\n"
        "    shelf = Shelf(); shelf.models['vision', 'detector', DIGEST] = model\n"
        "    await serve(shelf, kubelet_dir=kubelet, node_name='edge-1', models=models)\n"
        "    await publish(endpoints(kubelet)[0], request(target))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"asyncio.run(main(*map(Path, {[str(world.kubelet), str(world.models), str(world.model), str(world.target)]!r})))"
    )
    assert await run_program(sys.executable, "-c", code) == -signal.SIGKILL
    assert world.socket.exists()  # left behind
    with (world.target / "model.onnx").open("rb") as reader:
        await world.start()
        assert world.driver.mounted() == {world.model}
        await publish(world.socket, request(world.target))
        assert len(mounted_at(world.target)) == 1
        assert reader.read() == b"weights"
    await unpublish(world.socket, world.target)
    assert not mounted_at(world.target)


@scenario
async def a_mount_in_use_is_detached_in_the_end(world: World) -> None:
    """A file still open when the pod is gone: the reader keeps its bytes, the pod's folder is freed."""
    await publish(world.socket, request(world.target))
    with (world.target / "model.onnx").open("rb") as reader:
        await unpublish(world.socket, world.target)
        assert not world.target.exists()
        assert reader.read() == b"weights"


@scenario
async def a_folder_with_something_in_it_is_not_deleted(world: World) -> None:
    """What is not a mount and not empty is not ours."""
    (world.target / "data").mkdir(parents=True)
    code, message = await refusal(unpublish(world.socket, world.target))
    assert code is Status.INTERNAL
    assert "expected an empty directory" in message
    assert (world.target / "data").exists()


@scenario
async def a_failed_mount_leaves_no_folder(world: World) -> None:
    """The store lost the directory between the agent's word and the mount."""
    world.shelf.models["vision", "detector", DIGEST] = world.models / "gone"
    code, message = await refusal(publish(world.socket, request(world.target)))
    assert code is Status.INTERNAL
    assert "No such file or directory" in message
    assert not world.target.exists()
    assert world.driver.mounted() == set()


@scenario
async def calls_for_one_target_take_turns(world: World) -> None:
    """Eight publishes and as many unpublishes at once, then one publish: one mount, no refusal but 'withdrawn'."""

    async def tolerant(asked: Awaitable[None]) -> None:
        try:
            await asked
        except GRPCError as error:
            if "unpublished while it waited" not in str(error):
                raise

    for _ in range(3):
        calls = [publish(world.socket, request(world.target)) for _ in range(8)]
        calls += [unpublish(world.socket, world.target) for _ in range(8)]
        await asyncio.gather(*map(tolerant, calls))
        assert len(mounted_at(world.target)) <= 1
    await publish(world.socket, request(world.target))
    assert len(mounted_at(world.target)) == 1


@scenario
async def an_unpublish_overtakes_a_publish_that_waits(world: World) -> None:
    """The pod was deleted while its model was on its way: nothing is mounted when it has come."""
    world.shelf.coming[DIGEST] = asyncio.Event()
    waits = asyncio.create_task(refusal(publish(world.socket, request(world.target))))
    await until(lambda: world.shelf.waiting == 1, "the publish waits")
    await unpublish(world.socket, world.target)
    world.shelf.coming[DIGEST].set()
    code, message = await waits
    assert code is Status.ABORTED
    assert "unpublished while it waited" in message
    assert not mounted_at(world.target)
    assert not world.target.exists()


@scenario
async def a_kubelet_that_gives_up_ends_the_wait(world: World) -> None:
    """Its deadline passed, or it was restarted: the call is not left waiting, and the next one succeeds."""
    world.shelf.coming[DIGEST] = asyncio.Event()
    try:
        await publish(world.socket, request(world.target), deadline=0.1)
    except TimeoutError:
        pass
    else:
        raise AssertionError("expected a timeout")
    await until(lambda: world.shelf.waiting == 0, "the wait ended")
    world.shelf.coming[DIGEST].set()
    await publish(world.socket, request(world.target))
    assert len(mounted_at(world.target)) == 1


def threads() -> int:
    return len([*Path("/proc/self/task").iterdir()])


def resident() -> int:
    """Return this process's resident memory in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


@scenario
async def a_hundred_calls_wait_for_next_to_nothing(world: World) -> None:
    """Both ends of a hundred waiting calls in one process take under 100 KiB each; all end with the model."""
    await publish(world.socket, request(world.target))  # all modules are loaded, all pools filled
    await unpublish(world.socket, world.target)
    world.shelf.coming[DIGEST] = asyncio.Event()
    threads_before, before = threads(), resident()
    calls = []
    for number in range(100):
        uid = f"pod-{number}"
        calls.append(asyncio.create_task(publish(world.socket, request(target(world.kubelet, uid), uid))))
    await until(lambda: world.shelf.waiting == 100, "all wait")
    used = resident() - before
    print(f"100 waiting calls: {used} KiB, both ends")
    assert used < 10_000
    assert threads() == threads_before
    spent = time.process_time()
    await asyncio.sleep(1)  # what is measured: a second of waiting
    assert time.process_time() - spent < 0.05
    world.shelf.coming[DIGEST].set()
    await asyncio.gather(*calls)
    assert len([one for one in mounts.table() if one.point.endswith("/mount")]) == 100
    assert world.driver.mounted() == {world.model}


async def run(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="em", dir="/tmp") as short:
        tempfile.tempdir = tempfile.mkdtemp(dir=short)
        world = World(Path(short))
        await world.start()
        try:
            await _scenarios[name](world)
        finally:
            await world.driver.close()
            for one in reversed([one for one in mounts.table() if one.point.startswith(short)]):
                _libc.umount2(os.fsencode(one.point), 2)


if __name__ == "__main__":
    assert inspect.getdoc(_scenarios[sys.argv[1]])
    asyncio.run(run(sys.argv[1]))
