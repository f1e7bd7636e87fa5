"""Killed at every step of pull, delta, install, evict and repair, the store is right, and whole after the next run."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgemodel.node.transfer import SMALLEST_FOR_DELTA
from tests.crash.child import story_of
from tests.crash.models import version
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import POLICY, layer
from tests.unit.node.node_world import attach_delta, patch, weights

SIZE = SMALLEST_FOR_DELTA + 1000
OLD = weights(SIZE, "old")
NEW = OLD[:-500] + weights(500, "new")


@pytest.mark.process
@pytest.mark.timeout(300)
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
    told, _ = await story_of("story", str(folder / lane), lane, *arguments)
    return told
