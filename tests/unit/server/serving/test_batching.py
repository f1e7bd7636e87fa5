"""The decisions of the queue, each a table."""

from dataclasses import dataclass

import pytest

from inference_server.serving.batching import backlog, choose, refusal, wait_for_more


@dataclass
class Asked:
    rows_left: int
    key: str | None = "k"
    elements_left: int = 0

    def __post_init__(self):
        self.elements_left = self.elements_left or self.rows_left * 10


def line(*rows):
    return [Asked(*row) if isinstance(row, tuple) else Asked(row) for row in rows]


@pytest.mark.parametrize(
    ("waiting", "most_rows", "smallest_first", "chosen"),
    [
        pytest.param(line(1, 1, 1), 8, False, [0, 1, 2], id="all that fit share a run"),
        pytest.param(line(1, 1, 1), 2, False, [0, 1], id="no more than the limit"),
        pytest.param(line(1, 1, 1), 1, False, [0], id="a limit of one is no batching"),
        pytest.param(line(3, 4, 1), 4, False, [0, 2], id="what does not fit is passed over by what does"),
        pytest.param(line(9, 1), 4, False, [0], id="one beyond the limit goes alone"),
        pytest.param(line(9, 1, 2), 4, True, [1, 2], id="the smallest leads in its turn"),
        pytest.param(line(2, 1, 1), 2, True, [1, 2], id="of equally small ones the oldest leads"),
        pytest.param(line((1, "a"), (1, "b"), (1, "a")), 8, False, [0, 2], id="only equal keys share"),
        pytest.param(line((1, None), (1, None)), 8, False, [0], id="no key shares with nobody"),
        pytest.param(line(4, 1), 4, False, [0], id="a full one takes nobody in"),
    ],
)
def test_what_an_idle_session_takes(waiting, most_rows, smallest_first, chosen):
    assert choose(waiting, most_rows, float("inf"), smallest_first) == chosen


@pytest.mark.parametrize(
    ("waiting", "most_elements", "chosen"),
    [
        pytest.param(line(1, 1, 1), 30, [0, 1, 2], id="all that fit"),
        pytest.param(line(1, 1, 1), 29, [0, 1], id="no more than the limit"),
        pytest.param(line((1, "k", 100), 1), 50, [0], id="one beyond the limit goes alone"),
        pytest.param(line((1, "k", 20), (1, "k", 40), 1), 50, [0, 2], id="what is too large is passed over"),
    ],
)
def test_what_an_idle_session_takes_of_large_rows(waiting, most_elements, chosen):
    assert choose(waiting, 8, most_elements, smallest_first=False) == chosen


def cheap_together(elements):
    return 0.010 + elements * 0.00001


def in_proportion(elements):
    return elements * 0.001


@pytest.mark.parametrize(
    ("requests", "gap", "left", "seconds", "waits"),
    [
        pytest.param(1, 0.001, 0.005, cheap_together, True, id="the next is near and nearly free"),
        pytest.param(1, 0.02, 0.05, cheap_together, False, id="the next comes after this run has ended"),
        pytest.param(1, 0.006, 0.005, cheap_together, False, id="the next comes after the longest delay"),
        pytest.param(1, 0.001, 0.0, cheap_together, False, id="the delay is used up"),
        pytest.param(1, 0.001, 0.005, in_proportion, False, id="computing together saves nothing"),
        pytest.param(30, 0.001, 0.005, cheap_together, False, id="many would wait for the sake of one"),
    ],
)
def test_whether_a_session_waits_for_more(requests, gap, left, seconds, waits):
    wait = wait_for_more(requests, requests * 10, 10, gap, left, seconds)
    assert (wait > 0) == waits
    assert wait <= left


@pytest.mark.parametrize(
    ("rows", "most_rows", "seconds"), [(4, 8, 0.0104), (8, 8, 0.0108), (16, 8, 0.0216), (3, 1, 0.03003)]
)
def test_what_waits_costs_as_many_full_runs_as_it_fills(rows, most_rows, seconds):
    assert backlog(rows, rows * 10 if most_rows > 1 else rows, most_rows, cheap_together) == pytest.approx(
        seconds, abs=1e-4
    )


@pytest.mark.parametrize(
    ("wait", "own", "left", "waiting", "reason"),
    [
        pytest.param(0.0, 0.1, None, 0, None, id="no deadline, no queue"),
        pytest.param(9.0, 0.1, None, 9, None, id="no deadline, and there is room"),
        pytest.param(0.1, 0.1, 0.3, 5, None, id="in time"),
        pytest.param(0.25, 0.1, 0.3, 5, "predicted wait of 0.25 s", id="too late"),
        pytest.param(0.0, 0.4, 0.3, 0, "0.4 s of computing", id="too large for its deadline by itself"),
        pytest.param(1.5, 0.1, None, 10, "10 requests wait already.*predicted wait 1.5 s", id="no room"),
    ],
)
def test_who_is_let_in(wait, own, left, waiting, reason):
    import re

    found = refusal(wait, own, left, waiting, 10)
    assert found is None if reason is None else re.search(reason, found)
