"""Logs are JSON lines, and the chatty stay silent."""

import json
import logging

import pytest

from edgemodel.process.logs import JsonFormatter, configure


def formatted(level: int = logging.INFO, **extra: object) -> dict[str, object]:
    logger = logging.getLogger("edgemodel.test")
    record = logger.makeRecord(
        "edgemodel.test", level, __file__, 1, "child %s", ("applied",), None, extra=extra
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, object] = json.loads(line)
    return found


def test_a_line_holds_what_was_said_and_about_what() -> None:
    line = formatted(namespace="vision", child="Service/detector")
    assert line["message"] == "child applied"
    assert line["level"] == "info"
    assert (line["namespace"], line["child"]) == ("vision", "Service/detector")
    assert str(line["time"]).endswith("+00:00")


def test_what_is_no_json_becomes_text() -> None:
    assert formatted(path=object)["path"] == "<class 'object'>"


def test_a_traceback_stays_on_the_line() -> None:
    error = RuntimeError("no")
    info = (type(error), error, None)
    record = logging.getLogger("x").makeRecord("x", logging.ERROR, "", 1, "failed", (), info)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "RuntimeError: no" in json.loads(line)["traceback"]


def test_libraries_that_log_urls_and_headers_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    before = root.level
    configure("debug")
    try:
        assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)
        assert not logging.getLogger("httpcore").isEnabledFor(logging.DEBUG)
        assert logging.getLogger("edgemodel.cluster").isEnabledFor(logging.DEBUG)
    finally:
        root.setLevel(before)
