"""Tests that need the machine to themselves get it."""

import threading

import pytest

from tests import turns


@pytest.fixture(autouse=True)
def run(monkeypatch, tmp_path):
    monkeypatch.setenv(turns.RUN, "x")
    monkeypatch.setattr(turns.tempfile, "tempdir", str(tmp_path))


class Worker:
    """A test on another worker, which goes on until it is told to end."""

    def __init__(self, *, alone):
        self.began, self.end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(alone,), daemon=True)
        self._thread.start()

    def _run(self, alone):
        with turns.turn(alone=alone):
            self.began.set()
            self.end.wait(5)

    def ends(self):
        self.end.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


def test_ordinary_tests_run_side_by_side():
    first, second = Worker(alone=False), Worker(alone=False)
    assert first.began.wait(5)
    assert second.began.wait(5)
    first.ends()
    second.ends()


def test_one_that_needs_to_be_alone_waits_for_those_that_run_and_is_not_overtaken():
    first = Worker(alone=False)
    assert first.began.wait(5)
    alone = Worker(alone=True)
    assert not alone.began.wait(0.2)
    late = Worker(alone=False)
    assert not late.began.wait(0.2)
    first.ends()
    assert alone.began.wait(5)
    assert not late.began.wait(0.2)
    alone.ends()
    assert late.began.wait(5)
    late.ends()


def test_without_other_workers_nobody_waits(monkeypatch):
    monkeypatch.delenv(turns.RUN)
    with turns.turn(alone=True), turns.turn(alone=True):
        pass
