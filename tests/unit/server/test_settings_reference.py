"""The reference names every setting of the server, with its variable, and no other."""

import re
from pathlib import Path

from inference_server.settings import OPTIONS

REFERENCE = Path(__file__).parents[3] / "docs/reference/inference-server.md"


def test_every_setting_has_its_line_and_every_line_its_setting():
    lines = re.findall(r"^\| `(--[a-z-]+)` \| `([A-Z_]+)` \|", REFERENCE.read_text(), re.M)
    assert sorted(lines) == sorted((option.flag, option.variable) for option in OPTIONS)
