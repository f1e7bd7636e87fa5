"""Stuck runs and a stuck loop: found late enough, told once, and forgiven when they come back."""

import logging
import threading
from dataclasses import dataclass, field

import pytest

from inference_server.host.watchdog import EXIT_CODE, LoopWatch, Watchdog, run_limit
from inference_server.telemetry.metrics import Metrics


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@dataclass
class Run:
    taken: float
    rows: int
    thread: int = field(default_factory=threading.get_ident)


@dataclass
class Model:
    """What the watchdog sees of a model."""

    longest_run: float = 0.0
    labels: tuple = ("detector", "3")
    running: tuple = ()


class Site:
    def __init__(self, *models):
        self.clock = Clock()
        self.models = models
        self.metrics = Metrics()
        self.watchdog = Watchdog(self.metrics, self.clock)

    def look(self, now):
        self.clock.now = now
        self.watchdog.look(self.models)
        assert self.watchdog.alive == (self.stuck == 0)
        return self.stuck

    @property
    def stuck(self):
        return self.metrics.registry.get_sample_value("inference_stuck_runs")


@pytest.mark.parametrize(("longest", "limit"), [(0, 30), (0.001, 30), (1.5, 30), (2, 40), (60, 1200)])
def test_the_limit_follows_the_longest_run_and_is_never_below_half_a_minute(longest, limit):
    assert run_limit(longest) == limit


def test_a_run_is_stuck_only_beyond_the_limit_and_is_told_once_with_its_evidence(caplog):
    site = Site(Model(longest_run=2, running=(Run(0.0, 16),)))
    assert site.look(40) == 0
    assert caplog.records == []
    assert site.look(40.1) == 1
    assert site.look(41) == 1
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    told = record.fields
    assert (told["model"], told["version"], told["rows"]) == ("detector", "3", 16)
    assert (told["seconds"], told["limit_seconds"]) == (40.1, 40.0)
    assert "test_a_run_is_stuck_only_beyond_the_limit" in told["stack"]


def test_a_run_that_comes_back_makes_the_server_live_again(caplog):
    model = Model(running=(Run(0.0, 1),))
    site = Site(model)
    assert site.look(31) == 1
    model.running = ()
    assert site.look(33) == 0
    assert caplog.records[-1].message == "stuck run came back"


def test_runs_of_several_models_are_told_apart(caplog):
    site = Site(
        Model(labels=("a", "1"), running=(Run(0.0, 1), Run(0.0, 2, thread=17))),
        Model(labels=("b", "1"), longest_run=100, running=(Run(0.0, 1),)),
    )
    assert site.look(31) == 2
    assert [record.fields["model"] for record in caplog.records] == ["a", "a"]
    assert caplog.records[1].fields["stack"] == "its thread has ended"


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
