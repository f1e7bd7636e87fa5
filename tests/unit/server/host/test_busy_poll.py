"""Staying awake after an answer: for clients that ask again at once, and for no others."""

import pytest

from inference_server.host.busy_poll import BUSY_ANSWERS, CLOSE_SECONDS, MOST_SKIPPED, BusyPoll

LONGEST = 0.0002
TURN = 0.00001


class Loop:
    """An event loop on which time passes only when it turns, or when it is told."""

    def __init__(self):
        self.now = 100.0
        self.turns = 0
        self.idle = True
        self._due = []
        self.poll = BusyPoll(self, lambda: self.idle, LONGEST, lambda: self.now)

    def call_soon(self, callback):
        self._due.append(callback)

    def turn(self):
        """Turn once; return whether it would look at the sockets without sleeping afterwards."""
        due, self._due = self._due, []
        for callback in due:
            callback()
        self.turns += bool(due)
        self.now += TURN
        return bool(self._due)

    def answer(self, after):
        """Answer a request that comes so long after the answer before it; return the turns that passed awake."""
        comes, before = self.now + after, self.turns
        while self.now < comes and self.turn():
            pass
        self.now = max(self.now, comes)
        self.poll.answered()
        return self.turns - before


@pytest.fixture
def loop():
    loop = Loop()
    loop.answer(1.0)
    return loop


def test_the_loop_stays_awake_for_a_client_that_asks_again_at_once(loop):
    assert [loop.answer(5 * TURN) for _ in range(100)] == [0, *[5] * 99]


def test_it_sleeps_after_a_while_without_a_request(loop):
    loop.answer(5 * TURN)
    began = loop.now
    while loop.turn():
        pass
    assert loop.now - began == pytest.approx(LONGEST, abs=2 * TURN)


def test_requests_at_a_slower_pace_cost_no_turn(loop):
    assert not any(loop.answer(CLOSE_SECONDS) for _ in range(1000))


def test_looks_in_vain_become_rare(loop):
    awake = [bool(loop.answer(LONGEST * 2)) for _ in range(10 * MOST_SKIPPED)]
    assert sum(awake) < 20
    assert any(awake[-MOST_SKIPPED - 3 :])


def test_after_looks_in_vain_it_stays_awake_again_where_that_pays(loop):
    for _ in range(10 * MOST_SKIPPED):
        loop.answer(LONGEST * 2)
    assert all([loop.answer(5 * TURN) for _ in range(2 * MOST_SKIPPED)][-MOST_SKIPPED // 2 :])


def test_requests_that_are_there_anyway_cost_next_to_nothing(loop):
    turns = sum(loop.answer(TURN) for _ in range(1000))
    assert turns <= 1000 * (BUSY_ANSWERS + 2) / (BUSY_ANSWERS + MOST_SKIPPED) + BUSY_ANSWERS


def test_it_sleeps_while_a_thread_computes(loop):
    loop.answer(5 * TURN)
    loop.idle = False
    assert not loop.turn()
    loop.idle = True
    loop.answer(5 * TURN)
    assert loop.turn()
