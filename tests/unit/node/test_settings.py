"""The agent's settings: defaults, every field, and what is refused by its name."""

import json

import pytest

from edgemodel.errors import Stalled
from edgemodel.node.settings import AgentSettings, read_settings


def test_no_file_is_the_defaults(tmp_path):
    assert read_settings(None) == AgentSettings()
    path = tmp_path / "agent.json"
    path.write_text("{}")
    assert read_settings(path) == AgentSettings()


def test_every_field(tmp_path):
    path = tmp_path / "agent.json"
    document = {
        "registries": {"registry.local:5000": {"plainHTTP": True}},
        "storeBudget": 1 << 30,
        "rateLimit": 1 << 20,
        "heartbeatSeconds": 30,
        "downloads": 3,
        "recheckRate": 1 << 20,
        "executionProviders": ["CPUExecutionProvider", "CUDAExecutionProvider"],
        "host": "127.0.0.1",
        "port": 0,
        "logLevel": "debug",
    }
    path.write_text(json.dumps(document))
    found = read_settings(path)
    assert found.registries.for_host("registry.local:5000").plain_http
    assert (found.store_budget, found.rate_limit, found.heartbeat_seconds) == (1 << 30, 1 << 20, 30.0)
    assert (found.downloads, found.recheck_rate, found.host, found.port) == (3, 1 << 20, "127.0.0.1", 0)
    assert found.execution_providers[1] == "CUDAExecutionProvider"
    assert found.log_level == "debug"


def test_nothing_said_is_no_limit(tmp_path):
    path = tmp_path / "agent.json"
    path.write_text('{"storeBudget": 0, "rateLimit": null}')
    assert (read_settings(path).store_budget, read_settings(path).rate_limit) == (None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON"),
        ("[]", "an object"),
        ('{"budget": 1}', '"budget"'),
        ('{"storeBudget": "8Gi"}', "storeBudget"),
        ('{"rateLimit": -1}', "rateLimit"),
        ('{"downloads": 0}', "downloads"),
        ('{"port": true}', "port"),
        ('{"host": 5}', "host"),
        ('{"logLevel": "loud"}', "logLevel"),
        ('{"executionProviders": "CPU"}', "executionProviders"),
        ('{"registries": {"a/b": {}}}', "registry settings"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path, text, words):
    path = tmp_path / "agent.json"
    path.write_text(text)
    with pytest.raises(Stalled, match=words) as refused:
        read_settings(path)
    assert str(path) in refused.value.message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Stalled, match=r"agent\.json"):
        read_settings(tmp_path / "agent.json")
