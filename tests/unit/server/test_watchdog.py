"""Stuck runs and a stuck loop: found late enough, told once, and forgiven when they come back."""

import logging
import threading

import pytest

from inference_server.metrics import Metrics
from inference_server.watchdog import EXIT_CODE, LoopWatch, Watchdog, run_limit


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Site:
    def __init__(self, longest=0.0):
        self.clock = Clock()
        self.metrics = Metrics()
        self.watchdog = Watchdog(self.metrics, self.clock)
        self.watch = self.watchdog.of("detector", "3", longest)

    @property
    def stuck(self):
        return self.metrics.registry.get_sample_value("inference_stuck_runs")


@pytest.mark.parametrize(("longest", "limit"), [(0, 30), (0.001, 30), (1.5, 30), (2, 40), (60, 1200)])
def test_the_limit_follows_the_longest_run_and_is_never_below_half_a_minute(longest, limit):
    assert run_limit(longest) == limit


def test_a_run_is_stuck_only_beyond_the_limit_and_is_told_once_with_its_evidence(caplog):
    site = Site(longest=2)
    site.watch.begin(16)
    site.clock.now = 40
    site.watchdog.look()
    assert site.watchdog.alive
    assert (site.stuck, caplog.records) == (0, [])
    site.clock.now = 40.1
    site.watchdog.look()
    site.watchdog.look()
    assert not site.watchdog.alive
    assert site.stuck == 1
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    told = record.fields
    assert (told["model"], told["version"], told["rows"]) == ("detector", "3", 16)
    assert (told["seconds"], told["limit_seconds"]) == (40.1, 40.0)
    assert "test_a_run_is_stuck_only_beyond_the_limit" in told["stack"]


def test_a_run_that_comes_back_makes_the_server_live_again_and_raises_the_limit(caplog):
    site = Site()
    site.watch.begin(1)
    site.clock.now = 31
    site.watchdog.look()
    site.watch.end()
    site.watchdog.look()
    assert site.watchdog.alive
    assert site.stuck == 0
    assert caplog.records[-1].message == "stuck run came back"
    assert run_limit(site.watch.longest) == 620


def test_runs_of_two_threads_are_told_apart():
    site = Site()
    site.watch.begin(1)
    other = threading.Thread(target=lambda: (site.watch.begin(2), site.watch.end()))
    other.start()
    other.join()
    site.clock.now = 31
    assert not site.watchdog.alive
    site.watch.end()
    assert site.watchdog.alive


def watch_loop(*, beats):
    """Return the exit codes of a watch that looks each 10 ms and allows five looks."""
    codes, ended = [], threading.Event()

    def end(code):
        codes.append(code)
        ended.set()

    watch = LoopWatch(seconds=0.05, tick=0.01, end=end)
    watch.start()
    if beats:
        for _ in range(20):
            watch.beat()
            assert not ended.wait(0.005)
        watch.stop()
    else:
        assert ended.wait(5)
    return codes


def test_a_loop_that_beats_is_left_alone():
    assert watch_loop(beats=True) == []


def test_a_loop_that_stands_still_ends_the_process_and_leaves_every_stack(caplog):
    assert watch_loop(beats=False) == [EXIT_CODE]
    (record,) = [record for record in caplog.records if "event loop is stuck" in record.message]
    assert "test_a_loop_that_stands_still" in record.fields["stacks"]["MainThread"]
