"""A disk that fills up in the middle of a download: an answer, eviction where that helps, and nothing lost."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import POLICY, publish
from tests.unit.node.node_world import graph, release, weights

ROOT = Path(__file__).parents[2]
SIZE = 3 << 20


@pytest.mark.process
async def test_a_disk_that_fills_up_under_a_download_is_survived(tmp_path):
    async with RegistrySimulator() as simulator:
        old, new = (
            publish(
                simulator,
                {"model.onnx": graph(number), "w.data": weights(SIZE, str(number))},
                release=release(number),
                tag=f"v{number}",
            )
            for number in (1, 2)
        )
        policy, disk = tmp_path / "policy.json", tmp_path / "disk"
        policy.write_text(POLICY.to_json())
        disk.mkdir()
        child = await asyncio.create_subprocess_exec(
            *("unshare", "--map-root-user", "--mount", sys.executable, "-m", "tests.crash.full_disk"),
            *(str(disk), simulator.host, str(policy), str(old.pinned), str(new.pinned)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, said = await child.communicate()
        assert child.returncode == 0, said.decode()
        told = json.loads(out)
        assert told["enospc"] >= 1
        assert "DiskFull" in told["refused"]
        assert "make room" in told["refused"]
        assert told["served"]
        assert 0 < told["resumed"] < SIZE - (1 << 20) + len(graph(2)) + 1
        assert told["enospc again"] >= 1
        assert told["evicted"]
        assert told["installed"]
