"""Killed at every step of pull, delta, install, evict and repair, the store is right, and whole after the next run."""

import asyncio
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from edgemodel.artifact import media_types
from edgemodel.artifact.manifest import Descriptor, ModelFile, build_config, build_manifest
from edgemodel.node.transfer import SMALLEST_FOR_DELTA
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import POLICY, REPOSITORY, Published, layer, put
from tests.unit.node.node_world import attach_delta, graph, patch, release, weights

ROOT = Path(__file__).parents[2]
SIZE = SMALLEST_FOR_DELTA + 1000
OLD = weights(SIZE, "old")
NEW = OLD[:-500] + weights(500, "new")


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def version(simulator: RegistrySimulator, number: int, content: bytes) -> Published:
    """A model of a graph, weights that the versions may share parts of, and an archive that they share whole."""
    labels = archive({"labels.txt": b"cat\n" * 100})
    packed = Descriptor("application/vnd.cncf.model.doc.v1.tar", layer(labels).digest, len(labels))
    files = [
        ModelFile("model.onnx", layer(graph(number))),
        ModelFile("weights/w.data", layer(content)),
        ModelFile("labels.tar", packed, "tar"),
    ]
    config = build_config(release(number), [file.descriptor.digest for file in files])
    for blob in (graph(number), content, labels, config):
        simulator.add_blob(REPOSITORY, blob)
    described = layer(config, media_types.MODEL_CONFIG)
    return put(simulator, build_manifest(files, described, release(number)), tag=f"v{number}")


@pytest.mark.process
@pytest.mark.timeout(180)
async def test_killed_at_every_step_the_store_is_right_and_recovers(tmp_path):
    async with RegistrySimulator() as simulator:
        old, new = version(simulator, 1, OLD), version(simulator, 2, NEW)
        attach_delta(simulator, new, {(OLD, NEW): patch(NEW, SIZE - 500)})
        policy = tmp_path / "policy.json"
        policy.write_text(POLICY.to_json())
        arguments = [simulator.host, str(policy), str(old.pinned), str(new.pinned)]
        told = await asyncio.gather(*(told_by(tmp_path, lane, arguments) for lane in ("0", "1")))
        assert [problem for each in told for problem in each["problems"]] == []
        steps = told[0]["steps"]
        # Each of them was the last one once; two tellings differ by a step or two, as downloads go side by side.
        assert sum(each["killed"] for each in told) >= len(steps) - 10
        assert {"open", "write", "fsync", "replace", "rename", "link", "unlink", "mkdir", "chmod"} <= set(
            steps
        )
        by_delta = simulator.seen("GET", str(layer(patch(NEW, SIZE - 500)).digest))
        assert len(by_delta) > len(steps) / 4


async def told_by(folder: Path, lane: str, arguments: list[str]) -> dict[str, Any]:
    """What one lane has to tell."""
    (folder / lane).mkdir()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.crash.story", str(folder / lane), lane, *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await child.communicate()
    assert child.returncode == 0, said.decode()
    told: dict[str, Any] = json.loads(out)
    return told
