"""What an agent's store goes through, told to a process that is killed in the middle; run by ``test_crash_points``.

::

    python -m tests.crash.story <folder> <lane> <registry> <policy.json> <reference>…

Everything is imported once; then, for every step that changes the disk, a fork tells the story and is killed at that step
(in the middle of it, where it is a write), what is on disk is looked at, and another fork tells the story to its end.
A lane, 0 or 1, has every other step, so that two processes share the work.
Steps are counted below this project's code: in ``os`` itself, and where Python opens files.
"""

import asyncio
import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Manifest, model_files
from edgemodel.artifact.policy import Policy
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_settings import HostSettings, RegistrySettings
from edgemodel.artifact.verify import examine
from edgemodel.node.store import NodeStore
from edgemodel.node.transfer import Transfers
from tests.unit.node.node_world import Wish, apply_suffix

STEPS = (
    "chmod", "fchmod", "fsync", "ftruncate", "link", "mkdir", "remove", "rename", "replace", "rmdir", "truncate",
    "unlink", "utime", "write",
)  # fmt: skip


@dataclasses.dataclass
class World:
    """What the story is about."""

    registry: str
    policy: Policy
    references: list[Reference]


class Steps:
    """Counts what changes the disk; the step with the fatal number is the process's last."""

    def __init__(self, fatal: int) -> None:
        self.taken: list[str] = []
        self._fatal = fatal
        self._lock = threading.Lock()

    def watch(self) -> None:
        """Begin to count, in this process, for good."""
        for name in STEPS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        real_open = os.open

        def counted_open(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if flags & (os.O_CREAT | os.O_TRUNC):
                self.step("open")
            return real_open(path, flags, *more, **named)

        os.open = counted_open
        sys.addaudithook(self._heard)

    def step(self, name: str, last_act: Callable[[], object] = lambda: None) -> None:
        """Take a step, or die on it."""
        with self._lock:
            self.taken.append(name)
            if len(self.taken) == self._fatal:
                last_act()
                os.kill(os.getpid(), signal.SIGKILL)

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            half = lambda: None  # noqa: E731
            if name == "write":
                handle, content = arguments
                half = lambda: real(handle, memoryview(content)[: len(content) // 2])  # noqa: E731
            self.step(name, half)
            return real(*arguments, **named)

        return counted

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+"):
            self.step("open")


async def tell(root: Path, world: World, boot: str) -> None:
    """Pull one version, the next by delta, evict the first, throw a blob away and mend it."""
    settings = RegistrySettings({world.registry: HostSettings(plain_http=True)})
    async with Connections(settings) as connections:
        store = NodeStore(root, boot=boot, grace=0.0)
        transfers = Transfers(store, connections, apply=apply_suffix)
        old, new = world.references

        async def bring(reference: Reference) -> None:
            examined = await examine(Registry(connections), reference)
            verdict = examined.judge([world.policy])
            await transfers.bring(Wish(), reference, examined, verdict, None)

        assert old.digest is not None
        assert new.digest is not None
        await bring(old)
        await bring(new)
        store.budget = 1
        store.collect({new.digest}, set())
        store.budget = None
        examined = store.examined(new.digest)
        assert examined is not None
        store.condemn([model_files(Manifest.parse(examined.manifest_bytes))[0].descriptor.digest])
        await bring(new)
        store.collect({new.digest}, set())


def wrongs(root: Path, world: World, boot: str) -> list[str]:
    """Say what is on disk that must not be, whatever happened."""
    found = [
        f"{path.name} has other bytes"
        for path in (root / "blobs" / "sha256").glob("*")
        if len(path.name) == 64 and sha256(path.read_bytes()).hexdigest() != path.name
    ]
    if not root.exists():
        return found
    store = NodeStore(root, boot=boot)
    for reference in world.references:
        assert reference.digest is not None
        directory = store.installed(reference.digest)
        if directory is None:
            continue
        if not all((directory / name).is_file() for name in ("model.json", "model.onnx", "labels.txt")):
            found.append(f"{directory} is said to be installed and is not whole")
            continue
        described = json.loads((directory / "model.json").read_bytes())
        examined = store.examined(reference.digest)
        if described["digest"] != reference.digest or examined is None:
            found.append(f"{directory} is not {reference.digest}")
            continue
        for file in model_files(Manifest.parse(examined.manifest_bytes)):
            if (
                file.packing == "raw"
                and Digest.of((directory / file.path).read_bytes()) != file.descriptor.digest
            ):
                found.append(f"{directory / file.path} has other bytes")
            elif file.packing != "raw" and (directory / "labels.txt").read_bytes() != b"cat\n" * 100:
                found.append(f"{directory / 'labels.txt'} has other bytes")
    return found


def left(root: Path) -> list[str]:
    """Every path below the root."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def forked(act: Callable[[], None]) -> int:
    """Do something in a process of its own and return how it ended: 0, or minus the signal's number."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            act()
            code = 0
        except BaseException as error:  # noqa: BLE001 - the end of this process
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def main(folder: Path, lane: int, world: World) -> dict[str, Any]:
    """Tell the story once to its end, and once for each of its lane's steps."""
    log = folder / "steps"

    def whole() -> None:
        steps = Steps(0)
        steps.watch()
        asyncio.run(tell(folder / "clean", world, "first"))
        taken = list(steps.taken)
        log.write_text(json.dumps(taken))

    problems = []
    if forked(whole) != 0:
        return {"steps": [], "problems": ["the story cannot be told at all"]}
    steps = json.loads(log.read_text())
    clean = left(folder / "clean")
    killed = 0
    number = lane - 1
    while True:
        number += 2
        root = folder / str(number)
        # Every other time the node has been started anew as well.
        boot = "first" if number % 4 < 2 else "second"

        def doomed(root: Path = root, number: int = number) -> None:
            Steps(number).watch()
            asyncio.run(tell(root, world, "first"))

        ended = forked(doomed)
        if ended == 0:
            break  # the story has no more steps than that
        killed += ended == -signal.SIGKILL
        if ended != -signal.SIGKILL:
            problems.append(f"step {number}: ended with {ended} before it")
        problems += [f"step {number}: {wrong}" for wrong in wrongs(root, world, boot)]
        if forked(lambda root=root, boot=boot: asyncio.run(tell(root, world, boot))) != 0:  # type: ignore[misc]
            problems.append(f"step {number}: it does not recover")
        problems += [f"step {number}, recovered: {wrong}" for wrong in wrongs(root, world, boot)]
        if (found := left(root)) != clean:
            problems.append(f"step {number}: leaves {set(found) ^ set(clean)}")
    return {"steps": steps, "killed": killed, "problems": problems}


if __name__ == "__main__":
    folder, lane, registry, policy, *references = sys.argv[1:]
    told = main(
        Path(folder),
        int(lane),
        World(
            registry,
            Policy.from_json(Path(policy).read_bytes()),
            [Reference.parse(text) for text in references],
        ),
    )
    print(json.dumps(told))
