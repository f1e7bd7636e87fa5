"""Flags, environment variables, and which of them wins."""

from dataclasses import fields
from pathlib import Path

import pytest

from inference_server.errors import InvalidSettings
from inference_server.settings import OPTIONS, Settings, read_settings

DIGEST = "sha256:" + "a" * 64


def test_defaults():
    assert read_settings(["--model", "/m"], {}) == Settings(model=Path("/m"))


def test_a_flag_wins_over_its_variable():
    environment = {
        "EDGEMODEL_MODEL": "/env",
        "EDGEMODEL_PORT": "81",
        "EDGEMODEL_THREADS": "3",
        "EDGEMODEL_HOST": "",
    }
    settings = read_settings(["--port", "82", "--digest", DIGEST], environment)
    assert (settings.model, settings.port, settings.threads) == (Path("/env"), 82, 3)
    assert (settings.host, settings.digest) == ("", DIGEST)


def test_a_repository_stands_in_for_a_model():
    settings = read_settings(["--model-repository", "/r", "--repository-memory-bytes", "1000"], {})
    assert (settings.model, settings.model_repository) == (None, Path("/r"))
    assert settings.repository_memory_bytes == 1000


def test_shares_and_switches():
    environment = {"EDGEMODEL_REQUEST_LOG": "0.01", "EDGEMODEL_EXEMPLARS": "True"}
    settings = read_settings(["--model", "m", "--cache-bytes", "1024", "--cache-ttl", "0.5"], environment)
    assert (settings.request_log, settings.exemplars) == (0.01, True)
    assert (settings.cache_bytes, settings.cache_ttl) == (1024, 0.5)


def test_processes_are_a_number_or_as_many_as_pay():
    assert read_settings(["--model", "m"], {"EDGEMODEL_PROCESSES": "3"}).processes == 3
    assert read_settings(["--model", "m", "--processes", "Auto"], {}).processes is None
    assert read_settings(["--model-repository", "r", "--processes", "auto"], {}).processes is None
    assert read_settings(["--model-repository", "r", "--processes", "1"], {}).processes == 1


def test_every_setting_has_a_flag_and_a_variable():
    assert [option.field for option in OPTIONS] == [field.name for field in fields(Settings)]


def test_a_service_called_edgemodel_does_not_become_the_port():
    assert read_settings(["--model", "m"], {"EDGEMODEL_PORT": "tcp://10.0.0.1:80"}).port == 8080


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "--model: expected a model directory or an .onnx file"),
        (
            ["--model", "m", "--port", "65536"],
            {},
            "--port: expected a whole number from 0 to 65535, found '65536'",
        ),
        (["--model", "m"], {"EDGEMODEL_PORT": "http"}, "EDGEMODEL_PORT: expected a whole number"),
        (
            ["--model", "m", "--model-repository", "r"],
            {},
            "--model-repository: expected nothing beside --model",
        ),
        (["--model", "m"], {"EDGEMODEL_MODEL_REPOSITORY": "r"}, "--model-repository: expected nothing"),
        (
            ["--model-repository", "r", "--processes", "2"],
            {},
            "--processes: expected 1 beside --model-repository",
        ),
        (["--model-repository", "r"], {"EDGEMODEL_PROCESSES": "2"}, "--processes: expected 1 beside"),
        (
            ["--model", "m", "--processes", "0"],
            {},
            "--processes: expected a whole number from 1 to 64, or auto",
        ),
        (["--model", "m", "--request-log", "1.5"], {}, "--request-log: expected a share from 0 to 1"),
        (["--model", "m", "--request-log", "1%"], {}, "--request-log: expected a share from 0 to 1"),
        (["--model", "m", "--exemplars", "yes"], {}, "--exemplars: expected true or false"),
        (["--model", "m", "--cache-bytes", "64Mi"], {}, "--cache-bytes: expected a whole number"),
        (["--model", "m", "--cache-ttl", "-1"], {}, "--cache-ttl: expected seconds"),
        (["--model", "m", "--threads", "0"], {}, "--threads: expected a whole number from 1"),
        (["--model", "m", "--max-body-bytes", "9" * 30], {}, "--max-body-bytes: expected a whole number"),
        (["--model", "m", "--drain-delay", "-1"], {}, "--drain-delay: expected seconds"),
        (["--model", "m", "--drain-timeout", "1e9"], {}, "--drain-timeout: expected seconds"),
        (["--model", "m", "--digest", "sha256:ab"], {}, "--digest: expected sha256: and 64"),
        (["--model", "m", "--name", "a/b"], {}, "--name: expected 1 to 256 printable characters"),
        (["--model", "m"], {"EDGEMODEL_MODEL_VERSION": "\n"}, "EDGEMODEL_MODEL_VERSION: expected"),
        (["--model", "m", "--log-level", "loud"], {}, "--log-level: expected debug, info, warning or error"),
    ],
)
def test_a_bad_value_is_refused_by_its_source(arguments, environment, message):
    with pytest.raises(InvalidSettings) as refusal:
        read_settings(arguments, environment)
    assert str(refusal.value).startswith(message)
    assert refusal.value.exit_code == 2
