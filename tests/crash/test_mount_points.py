"""Killed at every step of mounting, unmounting and evicting: pods have what was verified or nothing; no mount is left."""

import os
import tempfile

import pytest

from tests.crash.child import story_of


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("way", "calls"), [("detached", "syscall"), ("staged", "mount")])
async def test_killed_at_every_step_nothing_wrong_is_mounted_and_nothing_is_left(
    way: str, calls: str
) -> None:
    if os.geteuid() != 0:
        pytest.fail("mounting needs root (or `unshare --map-root-user` around pytest)")
    # Not pytest's own: a socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="em", dir="/tmp") as folder:
        told, said = await story_of("mount_story", folder, way, under=("unshare", "--mount"))
    print(f"{way}: killed at {told['killed']} of {len(told['steps'])} steps")
    assert told["problems"] == [], said
    assert told["killed"] == len(told["steps"])
    assert {calls, "umount", "mkdir", "rmdir", "rename", "unlink"} <= set(told["steps"])
