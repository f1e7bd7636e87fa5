"""What the gateway is started with: sane without a file, strict with one."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgemodel.errors import Stalled
from edgemodel.gateway.settings import GatewaySettings, read_settings


def test_without_a_file_there_are_defaults() -> None:
    assert read_settings(None) == GatewaySettings()


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ({"treads": 2}, "treads"),
        ({"httpPort": 0}, "httpPort"),
        ({"bufferBytes": 100}, "bufferBytes"),
        ({"logLevel": "loud"}, "logLevel"),
        ([], "expected"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, written: Any, named: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(written))
    with pytest.raises(Stalled, match=named if isinstance(written, dict) else "settings.json"):
        read_settings(path)


def test_a_file_that_is_not_there_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(Stalled, match=r"none\.json"):
        read_settings(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(Stalled, match=r"bad\.json"):
        read_settings(tmp_path / "bad.json")
