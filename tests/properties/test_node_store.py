"""Whatever a node is asked to hold, in whatever order: what it holds is whole, what is pinned stays, the rest fits."""

import os
import random
import sys
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.keys import PrivateKey
from edgemodel.artifact.manifest import Descriptor, Manifest, ModelFile, build_config, build_manifest
from edgemodel.artifact.policy import Policy, TrustedKey
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.release import Release
from edgemodel.artifact.signature import sign_bundle
from edgemodel.artifact.verify import Attachment, Examined
from edgemodel.node.store import NodeStore

KEY = PrivateKey.generate()
POLICY = Policy("site", ("**",), (TrustedKey("publisher", KEY.public),))
SHARED = [random.Random(number).randbytes(700 + number) for number in range(3)]
COUNTED: list[list[str]] = []
"""Where events go; an audit hook cannot be taken off again."""


def audit(event: str, arguments: tuple[object, ...]) -> None:
    if COUNTED and event.startswith(("os.", "open", "shutil.")):
        COUNTED[0].append(event)


sys.addaudithook(audit)


def described(content: bytes, media_type: str = "application/vnd.cncf.model.weight.v1.raw") -> Descriptor:
    return Descriptor(media_type, Digest.of(content), len(content))


def artifact(number: int) -> tuple[Examined, dict[str, bytes]]:
    """A signed model that shares a layer with every third other one."""
    files = {"model.onnx": f"graph {number}".encode() * 20, "w.data": SHARED[number % 3]}
    facts = Release(name="m", version=f"1.{number}", sequence=number + 1)
    layers = [ModelFile(path, described(content)) for path, content in files.items()]
    config = build_config(facts, [file.descriptor.digest for file in layers])
    manifest = Manifest.parse(
        build_manifest(layers, described(config, "application/vnd.cncf.model.config.v1+json"), facts)
    )
    reference = Reference.parse(f"registry.example.com/m@{manifest.digest}")
    signature = Attachment("Bundle", sign_bundle(KEY, manifest.digest))
    return Examined(reference, manifest.raw, (signature,)), files


ARTIFACTS = [artifact(number) for number in range(7)]


def arrive(store: NodeStore, number: int) -> Path:
    """What a transfer does, without a network."""
    examined, files = ARTIFACTS[number]
    store.keep(examined)
    for content in files.values():
        path = store.blobs.path(Digest.of(content))
        if not store.blobs.intact(described(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return store.install(examined, examined.judge([POLICY]), None)


def whole(store: NodeStore, number: int) -> bool:
    examined, files = ARTIFACTS[number]
    directory = store.installed(examined.digest)
    if directory is None:
        return False
    assert {path: (directory / path).read_bytes() for path in files} == files
    return True


numbers = st.integers(0, len(ARTIFACTS) - 1)
acts = st.one_of(
    st.tuples(st.just("arrive"), numbers),
    st.tuples(st.just("collect"), st.sets(numbers), st.sets(numbers), st.integers(0, 8000)),
    st.tuples(st.just("forget"), numbers),
    st.tuples(st.just("rot"), st.integers(0, 2)),
    st.tuples(st.just("touch"), numbers),
    st.tuples(st.just("restart")),
    st.tuples(st.just("reboot")),
)


@settings(max_examples=60)
@given(st.lists(acts, max_size=25))
def test_what_is_installed_is_whole_and_what_is_held_stays(story):
    with tempfile.TemporaryDirectory() as folder:
        boot = 0
        store = NodeStore(Path(folder) / "store", budget=1 << 30, boot=str(boot), grace=0.0)
        for name, *details in story:
            here = {number for number in range(len(ARTIFACTS)) if whole(store, number)}
            if name == "arrive":
                arrive(store, details[0])
                assert whole(store, details[0])
                assert here <= {number for number in range(len(ARTIFACTS)) if whole(store, number)}
            elif name == "collect":
                pinned, mounted, store.budget = details
                held = {number for number in pinned | mounted if number in here}
                directories = {store.directory(ARTIFACTS[number][0].digest, None) for number in mounted}
                evicted = store.collect({ARTIFACTS[number][0].digest for number in pinned}, directories)
                assert all(whole(store, number) for number in held)
                assert not {ARTIFACTS[number][0].digest for number in held} & set(evicted)
                kept = {
                    number
                    for number in range(len(ARTIFACTS))
                    if ARTIFACTS[number][0].digest in store.artifacts()
                }
                assert store.used() <= store.budget or kept <= pinned | mounted
                store.budget = 1 << 30
            elif name == "forget":
                store.forget(ARTIFACTS[details[0]][0].digest)
                assert not whole(store, details[0])
            elif name == "rot":
                store.condemn([Digest.of(SHARED[details[0]])])
                assert not any(whole(store, number) for number in range(details[0], len(ARTIFACTS), 3))
            elif name == "touch":
                store.touch(ARTIFACTS[details[0]][0].digest)
            else:
                boot += name == "reboot"
                store = NodeStore(store.root, budget=store.budget, boot=str(boot), grace=0.0)
                assert {number for number in range(len(ARTIFACTS)) if whole(store, number)} == (
                    set() if name == "reboot" else here
                )
        store.budget = 0
        store.collect(set(), set())
        assert [path for path in store.root.rglob("*") if path.is_file() and path.name != "lock"] == []


def test_collecting_among_fifty_models_takes_work_for_their_files_not_for_their_bytes(tmp_path):
    store = NodeStore(tmp_path / "store", budget=1 << 40, boot="first", grace=0.0)
    digests = set()
    for number in range(50):
        examined, files = artifact(1000 + number)
        ARTIFACTS.append((examined, files))
        try:
            arrive(store, len(ARTIFACTS) - 1)
        finally:
            ARTIFACTS.pop()
        digests.add(examined.digest)
    for file in (store.root / "blobs" / "sha256").iterdir():
        # As long as real ones; nothing of it may be read.
        file.chmod(0o644)
        os.truncate(file, 20 << 20)
    events: list[str] = []
    COUNTED.append(events)
    try:
        assert store.collect(digests, set()) == []
    finally:
        COUNTED.clear()
    assert 0 < len(events) < 50 * 2 * 10
