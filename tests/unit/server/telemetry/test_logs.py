"""The shape of log lines and termination messages."""

import json
import logging
import sys

import pytest

from inference_server.errors import MissingExternalData
from inference_server.telemetry.logs import (
    TERMINATION_MESSAGE_BYTES,
    JsonFormatter,
    termination_message,
    write_termination_log,
)


def test_a_log_record_is_one_line_of_json():
    try:
        int("two\nlines")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, __file__, 1, "event %s", ("a\nb",), sys.exc_info())
    record.fields = {"model": "m", "path": object}
    line = JsonFormatter().format(record)
    assert "\n" not in line
    document = json.loads(line)
    assert (document["level"], document["event"], document["model"]) == ("error", "event a\nb", "m")
    assert "ValueError" in document["exception"]


@pytest.mark.parametrize("message", ["short", "x" * 10_000, 'ü\n"' * 5_000, "\x00" * 3000, "\ud800" * 5000])
def test_a_termination_message_is_whole_json_within_the_kubelets_cap(message):
    encoded = termination_message(MissingExternalData(message))
    assert len(encoded) <= TERMINATION_MESSAGE_BYTES
    document = json.loads(encoded)
    assert document["reason"] == "MissingExternalData"
    assert document["message"][:100].replace("?", "\ud800") == message[:100]


def test_a_termination_log_is_written_only_where_there_is_one(tmp_path):
    error = MissingExternalData("m.data")
    write_termination_log(error, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "log").touch()
    write_termination_log(error, tmp_path / "log")
    assert json.loads((tmp_path / "log").read_bytes()) == {
        "reason": "MissingExternalData",
        "message": "m.data",
    }
    write_termination_log(
        error, tmp_path
    )  # a directory cannot be written: no second failure on top of the first
