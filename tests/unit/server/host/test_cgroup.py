"""Limits of the cgroup."""

import os

import pytest

from inference_server.host.cgroup import cpu_limit, memory_bytes, memory_limit, share_of_memory, whole_cpus


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


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        ({"cpu_DOT_max": "99000 100000"}, 0),
        ({"cpu_DOT_max": "100000 100000"}, 1),
        ({"cpu_DOT_max": "199000 100000"}, 1),
        ({"cpu_DOT_max": "max 100000"}, len(os.sched_getaffinity(0))),
        ({"cpu_DOT_max": "9900000 100000"}, len(os.sched_getaffinity(0))),
        ({}, len(os.sched_getaffinity(0))),
    ],
)
def test_part_of_a_cpu_is_no_whole_one(tmp_path, files, whole):
    assert whole_cpus(write(tmp_path, **files)) == whole


def test_memory_is_what_the_cgroup_allows_or_the_machine_has(tmp_path):
    assert memory_bytes(write(tmp_path, memory_DOT_max="1048576")) == 1 << 20
    assert memory_bytes(tmp_path / "none") > 1 << 20
