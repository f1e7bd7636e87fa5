"""A process that does not beat, or whose run is stuck, does not live."""

import os

import pytest

from inference_server.processes.pulse import MOST_MISSED, Pulse
from inference_server.telemetry.board import Board


@pytest.fixture
def boards():
    first = Board(2)
    yield first, Board(2, 1, first.fd)
    os.close(first.fd)


def test_a_process_lives_as_long_as_it_beats(boards):
    first, second = boards
    pulse = Pulse(first, 1)
    for _ in range(3 * MOST_MISSED):
        second.beat(stuck=False)
        assert pulse.alive()
    looks = [pulse.alive() for _ in range(MOST_MISSED)]
    assert looks == [True] * (MOST_MISSED - 1) + [False]
    second.beat(stuck=False)
    assert pulse.alive()


def test_a_stuck_run_is_seen_at_the_next_look(boards):
    first, second = boards
    pulse = Pulse(second, 0)
    first.beat(stuck=True)
    assert not pulse.alive()
    first.beat(stuck=False)
    assert pulse.alive()
