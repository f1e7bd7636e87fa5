"""Limits of the cgroup, and the shape of log lines and termination messages."""

import json
import logging
import os
import sys

import pytest

from inference_server.cgroup import cpu_limit, memory_limit, share_of_memory
from inference_server.errors import MissingExternalData
from inference_server.logs import (
    TERMINATION_MESSAGE_BYTES,
    JsonFormatter,
    termination_message,
    write_termination_log,
)


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu_DOT_max": "50000 100000"}, 1),
        ({"cpu_DOT_max": "100000 100000"}, 1),
        ({"cpu__cpu_DOT_cfs_quota_us": "20000", "cpu__cpu_DOT_cfs_period_us": "100000"}, 1),
    ],
)
def test_a_cpu_limit_is_rounded_up_to_whole_threads(tmp_path, files, cpus):
    assert cpu_limit(write(tmp_path, **files)) == cpus


@pytest.mark.parametrize(
    "files", [{}, {"cpu_DOT_max": "max 100000"}, {"cpu_DOT_max": "?"}, {"cpu__cpu_DOT_cfs_quota_us": "-1"}]
)
def test_without_a_limit_all_cpus_count(tmp_path, files):
    assert cpu_limit(write(tmp_path, **files)) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory_DOT_max": "536870912\n"}, 536870912),
        ({"memory_DOT_max": "max"}, None),
        ({"memory__memory_DOT_limit_in_bytes": "1024"}, 1024),
        ({"memory__memory_DOT_limit_in_bytes": "9223372036854771712"}, None),
        ({}, None),
    ],
)
def test_memory_limit(tmp_path, files, limit):
    assert memory_limit(write(tmp_path, **files)) == limit


def test_inputs_get_a_quarter_of_the_memory_at_most(tmp_path):
    assert share_of_memory(1000, tmp_path) == 1000
    assert share_of_memory(1000, write(tmp_path, memory_DOT_max="2000")) == 500


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
