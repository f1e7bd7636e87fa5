"""Numbers that several processes count are the whole server's, and outlive who counted them."""

import logging
import os

import pytest
from prometheus_client import CollectorRegistry

from inference_server.telemetry.board import Board
from inference_server.telemetry.metrics import Metrics
from inference_server.telemetry.process_family import ProcessFamily
from inference_server.telemetry.statistics import ModelStatistics


@pytest.fixture
def boards():
    """The same board as its three processes have it."""
    first = Board(3)
    yield [first, *(Board(3, row, first.fd) for row in (1, 2))]
    os.close(first.fd)


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_counters_histograms_and_levels_are_sums_whoever_is_asked(boards):
    every = [Metrics(board=board) for board in boards]
    for number, metrics in enumerate(every, 1):
        metrics.requests.labels("m", "1", "http", "200").inc(number)
        metrics.request_duration.labels("m", "1", "http").observe(number)
        metrics.inflight.labels("m", "1").set(number)
        metrics.load_duration.labels("m", "1").set(number)
        metrics.processes.set(1)
    every[2].requests.labels("m", "1", "http", "503").inc()
    for metrics in every:
        assert (
            value(metrics, "inference_requests_total", model="m", version="1", protocol="http", code="200")
            == 6
        )
        assert (
            value(metrics, "inference_requests_total", model="m", version="1", protocol="http", code="503")
            == 1
        )
        duration = {"model": "m", "version": "1", "protocol": "http"}
        assert value(metrics, "inference_request_duration_seconds_sum", **duration) == 6
        assert value(metrics, "inference_request_duration_seconds_count", **duration) == 3
        assert value(metrics, "inference_request_duration_seconds_bucket", **duration, le="2.0") == 2
        assert value(metrics, "inference_inflight_requests", model="m", version="1") == 6
        assert value(metrics, "inference_model_load_duration_seconds", model="m", version="1") == 3
        assert value(metrics, "inference_processes") == 3


def test_who_follows_counts_on_and_what_was_now_is_gone(boards):
    first, second = Metrics(board=boards[0]), Metrics(board=boards[1])
    labels = {"model": "m", "version": "1", "protocol": "http", "code": "200"}
    second.requests.labels(*labels.values()).inc(5)
    second.request_duration.labels("m", "1", "http").observe(0.5)
    second.inflight.labels("m", "1").set(2)
    boards[1].beat(stuck=True)
    assert boards[0].stuck(1)
    boards[0].ended(1)
    assert value(first, "inference_requests_total", **labels) == 5
    assert value(first, "inference_inflight_requests", model="m", version="1") == 0
    assert not boards[0].stuck(1)
    follower = Metrics(board=Board(3, 1, boards[0].fd))
    assert value(first, "inference_requests_total", **labels) == 5
    follower.requests.labels(*labels.values()).inc()
    follower.requests.labels("m", "1", "http", "500").inc()
    assert value(first, "inference_requests_total", **labels) == 6
    assert value(first, "inference_requests_total", **{**labels, "code": "500"}) == 1


def test_a_line_that_its_writer_did_not_end_is_no_line(boards):
    boards[1].cells("a", (), 1)[0] = 1.0
    at = (1 << 20) + (1 << 19) + len('["a", [], 1, false]\n')
    boards[1]._map[at : at + 6] = b'["b", '
    assert [list(cells) for cells in boards[0].gather("a")[()]] == [[1.0]]
    follower = Board(3, 1, boards[0].fd)
    follower.cells("cc", ("x",), 1)[0] = 2.0
    assert [list(cells) for cells in boards[0].gather("cc")[("x",)]] == [[2.0]]


def test_a_full_row_loses_the_sum_only_and_says_so_once(boards, caplog):
    with caplog.at_level(logging.WARNING):
        for number in range(4000):
            boards[1].cells("n", ("x" * 300, str(number)), 1)[0] += 1
    assert [record.message for record in caplog.records] == [
        "too many numbers to share; some are told by this process alone"
    ]
    assert sum(cells[0] for rows in boards[1].gather("n").values() for cells in rows) == 4000
    shared = len(boards[0].gather("n"))
    assert 1000 < shared < 4000
    # What has its place keeps it.
    assert boards[1].cells("n", ("x" * 300, "0"), 1)[0] == 1


def test_statistics_are_of_all_processes_and_the_last_request_is_the_latest(boards):
    every = [ModelStatistics(("m", "1"), board) for board in boards]
    every[0].answered(1.0, 0.25, 0.5, now=10.0)
    every[1].answered(2.0, 0.25, 0.5, now=30.0)
    every[2].failed(1.0, now=20.0)
    every[0].ran(4, 0.5)
    every[1].ran(4, 0.25)
    every[1].ran(1, 0.25)
    ModelStatistics(("other", "1"), boards[2]).failed(1.0, now=99.0)
    for one in every:
        whole = one.whole()
        assert (whole.success.count, whole.success.seconds, whole.fail.count) == (2, 3.0, 1)
        assert (whole.rows, whole.last, whole.compute_infer.count) == (9, 30.0, 3)
        assert {rows: (tally.count, tally.seconds) for rows, tally in whole.batches.items()} == {
            4: (2, 0.75),
            1: (1, 0.25),
        }


def test_alone_the_statistics_are_the_whole():
    alone = ModelStatistics(("m", "1"))
    assert alone.whole() is alone


def test_memory_and_processor_time_are_sums_of_processes_that_are_there():
    registry = CollectorRegistry()
    ProcessFamily(lambda: [os.getpid(), os.getpid(), 2**22 + 1], registry)
    one = CollectorRegistry()
    ProcessFamily(lambda: [os.getpid()], one)
    both = registry.get_sample_value("process_open_fds"), one.get_sample_value("process_open_fds")
    assert both[0] == 2 * both[1]
    starts = (it.get_sample_value("process_start_time_seconds") for it in (registry, one))
    assert len(set(starts)) == 1
    assert registry.get_sample_value("process_cpu_seconds_total") > 0
