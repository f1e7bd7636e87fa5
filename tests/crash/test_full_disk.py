"""A disk that fills up in the middle of a download: an answer, eviction where that helps, and nothing lost."""

import pytest

from tests.crash.child import story_of
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import POLICY, publish
from tests.unit.node.node_world import graph, release, weights

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
        told, _ = await story_of(
            "full_disk",
            *(str(disk), simulator.host, str(policy), str(old.pinned), str(new.pinned)),
            under=("unshare", "--map-root-user", "--mount"),
        )
        assert told["enospc"] >= 1
        assert "DiskFull" in told["refused"]
        assert "make room" in told["refused"]
        assert told["served"]
        assert 0 < told["resumed"] < SIZE - (1 << 20) + len(graph(2)) + 1
        assert told["enospc again"] >= 1
        assert told["evicted"]
        assert told["installed"]
