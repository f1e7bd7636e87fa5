"""What a node says about its entries, and when ``since`` moves."""

from datetime import UTC, datetime, timedelta

import pytest

from edgemodel.artifact.digest import Digest
from edgemodel.node.board import Board
from edgemodel.node.entry import Key

KEY = Key("vision", "detector", Digest.of(b"one"))
OTHER = Key("vision", "detector", Digest.of(b"two"))


class World:
    def __init__(self):
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.changes = []
        self.board = Board(lambda: self.time, self.changes.append)

    def later(self):
        self.time += timedelta(seconds=60)


@pytest.fixture
def world():
    return World()


def test_since_moves_with_the_state_alone(world):
    world.board.keep([KEY])
    began = world.board.line(KEY).since
    world.later()
    world.board.say(KEY, bytes=5, total=10, message="on its way")
    assert world.board.line(KEY).since == began
    world.board.say(KEY, state="Ready")
    assert world.board.line(KEY).since == world.time


def test_changes_are_told_once_and_bytes_as_such(world):
    world.board.keep([KEY])
    world.board.say(KEY, bytes=5)
    world.board.say(KEY, bytes=5)
    world.board.say(KEY, state="Downloading", bytes=6)
    world.board.say(OTHER, state="Ready")
    assert world.changes == [True, False, True]


def test_a_restart_says_what_was_said(world):
    world.board.keep([KEY, OTHER])
    world.board.say(KEY, state="Ready", kind="Delta")
    before = world.board.lines()
    after = World()
    after.later()
    after.board.remember({"models": [line.model_dump(mode="json", by_alias=True) for line in before]})
    after.board.keep([KEY, OTHER])
    assert after.board.lines() == before


def test_what_was_said_of_an_entry_that_came_back_is_not_believed(world):
    line = {
        "namespace": "vision",
        "name": "detector",
        "digest": KEY.digest,
        "state": "Ready",
        "since": "2025-01-01T00:00:00Z",
    }
    world.board.remember({"models": [line]})
    world.board.keep([OTHER])
    world.board.keep([KEY, OTHER])
    assert world.board.line(KEY).state == "Pending"


@pytest.mark.parametrize(
    "odd", [None, [], {"models": 5}, {"models": [{"state": "Ready"}]}, {"models": [None]}]
)
def test_a_status_that_is_none_is_passed_over(world, odd):
    world.board.remember(odd)
    world.board.keep([KEY])
    assert world.board.line(KEY).state == "Pending"


def test_words_are_cut_to_what_the_kind_takes(world):
    world.board.keep([KEY])
    world.board.say(KEY, message="x" * 5000, fallback_reason="y" * 5000)
    assert (len(world.board.line(KEY).message), len(world.board.line(KEY).fallback_reason)) == (1024, 512)
