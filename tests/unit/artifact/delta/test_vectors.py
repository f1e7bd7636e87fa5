"""Every patch of a released format is read for ever, and gives the bytes it gave then."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from tests.unit.artifact.delta.models import rebuild

VECTORS = Path(__file__).parents[3] / "vectors/delta"
CASES = [
    pytest.param(folder, name, case, id=f"{folder.name}-{name}")
    for folder in sorted(VECTORS.glob("[0-9]*"))
    for name, case in json.loads((folder / "expected.json").read_text()).items()
]


@pytest.mark.parametrize(("folder", "name", "case"), CASES)
def test_a_released_patch_gives_what_it_always_gave(folder, name, case):
    base = folder / case["base"] if case["base"] else None
    assert sha256(rebuild(base, folder / f"{name}.patch", case["size"])).hexdigest() == case["sha256"]


def test_there_are_vectors():
    assert len(CASES) >= 7
