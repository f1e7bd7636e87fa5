"""Settings: file, environment, and messages that name what is wrong."""

from pathlib import Path

import pytest

from edgemodel.controller.settings import OperatorSettings, load
from edgemodel.errors import Stalled

REFERENCE = Path(__file__).parents[3] / "docs/reference/operator-settings.md"


def test_without_anything_the_defaults_stand() -> None:
    settings = load(environment={})
    assert settings.workers == 4
    assert settings.port == 8081
    assert not settings.leader_election
    assert settings.children().image_pull_policy == "IfNotPresent"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("nodeImage: from-file:1\nserverImage: from-file:1\nworkers: 2\n")
    environment = {
        "EDGEMODEL_SETTINGS": str(file),
        "EDGEMODEL_NODE_IMAGE": "from-env:1",
        "EDGEMODEL_PORT": "0",
    }
    settings = load(environment=environment)
    assert (settings.node_image, settings.server_image) == ("from-env:1", "from-file:1")
    assert (settings.workers, settings.port) == (2, 0)


def test_lists_and_maps_are_yaml_in_the_environment() -> None:
    settings = load(
        environment={
            "EDGEMODEL_NAMESPACES": "vision, audio",
            "EDGEMODEL_REGISTRIES": '{"registry.site:5000": {"plainHTTP": true}}',
            "EDGEMODEL_LABELS": "{team: edge}",
            "EDGEMODEL_LEADER_ELECTION": "true",
        }
    )
    assert settings.namespaces == ["vision", "audio"]
    assert settings.registry_settings().for_host("registry.site:5000").plain_http
    assert settings.children().labels == {"team": "edge"}
    assert settings.leader_election


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nodeImages: x", "nodeImages"),
        ("workers: 0", "workers"),
        ("registries: {'host': {insecure: true}}", "insecure"),
        ("leaseDuration: 5", "leaseDuration > leaseRenewDeadline"),
        ("- a list", "expected fields"),
        ("a: b: c", "settings file"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(Stalled) as caught:
        load(file, environment={})
    assert named in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Stalled, match="absent"):
        load(tmp_path / "absent.yaml", environment={})


def test_the_reference_names_every_setting_with_its_variable() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    missing = [
        name
        for name, field in OperatorSettings.model_fields.items()
        if f"| `{field.alias}` | `EDGEMODEL_{name.upper()}` |" not in text
    ]
    assert missing == []
