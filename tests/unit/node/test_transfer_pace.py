"""How fast, and how long to wait: the limiter, the link's speed, the back-off; in a time of the test's own."""

import asyncio
import itertools
import random

import pytest

from edgemodel.node.backoff import Backoff, spread
from edgemodel.node.limiter import BURST_SECONDS, Limiter
from edgemodel.node.metered_source import LinkSpeed


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    return Time()


async def taken(limiter: Limiter, pieces: list[int]) -> None:
    for piece in pieces:
        await limiter.take(piece)


@pytest.mark.parametrize("seed", range(5))
async def test_no_more_passes_than_the_rate_whatever_the_pieces_and_whoever_asks(time, seed):
    limiter = Limiter(1e6, clock=time, sleep=time.sleep)
    made = random.Random(seed)
    pieces = [[made.randrange(1, 1 << 18) for _ in range(40)] for _ in range(3)]
    await asyncio.gather(*(taken(limiter, each) for each in pieces))
    total = sum(map(sum, pieces))
    assert total <= 1e6 * (time.now + BURST_SECONDS) + (1 << 18)
    assert total >= 1e6 * (time.now - 0.3)


async def test_without_a_rate_nobody_waits(time):
    await taken(Limiter(None, clock=time, sleep=time.sleep), [1 << 30] * 10)
    assert time.slept == []


async def test_a_new_rate_counts_for_those_who_wait(time):
    limiter = Limiter(1.0, clock=time, sleep=time.sleep)
    await limiter.take(1_000_000)
    waiting = asyncio.ensure_future(limiter.take(1))
    await asyncio.sleep(0)
    limiter.rate = 1e9
    await waiting
    assert time.now < 3


def test_the_links_speed_is_that_of_all_transfers_together_while_there_are_any(time):
    speed = LinkSpeed(time)
    assert speed.bytes_per_second is None
    speed.begin()
    speed.begin()
    for _ in range(10):
        time.now += 0.1
        speed.count(500_000)
        speed.count(500_000)
    speed.end()
    speed.end()
    assert speed.bytes_per_second == pytest.approx(1e7)
    time.now += 1000  # nothing to do
    speed.begin()
    time.now += 1
    speed.count(40_000_000)
    speed.end()
    assert speed.bytes_per_second == pytest.approx(2e7)


def test_what_the_link_gave_is_forgotten_after_an_hour(time):
    speed = LinkSpeed(time)

    def transfer(megabytes, seconds):
        speed.begin()
        time.now += seconds
        speed.count(megabytes * 1_000_000)
        speed.end()

    transfer(10, 1)
    time.now += LinkSpeed.LONGEST_AGE - 1
    assert speed.bytes_per_second == pytest.approx(1e7)
    time.now += 1
    assert speed.bytes_per_second is None
    transfer(2, 2)
    assert speed.bytes_per_second == pytest.approx(1e6)  # no mean with what was


def test_small_transfers_say_nothing_of_the_link(time):
    speed = LinkSpeed(time)
    speed.begin()
    time.now += 5
    speed.count(1000)
    speed.end()
    assert speed.bytes_per_second is None


def test_waits_grow_to_a_limit_and_begin_anew_after_a_success():
    backoff = Backoff(2.0, 60.0, fraction=lambda: 0.5)
    assert [backoff.next() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next() == 1
    for _ in range(2000):
        backoff.next()


def test_the_other_sides_wish_is_kept_to():
    assert Backoff(2.0, 60.0, fraction=lambda: 0.5).next(retry_after=30.0) == 31.0


def test_a_fleet_comes_back_spread_out():
    made = random.Random(1)
    waits = sorted(Backoff(64.0, 64.0, fraction=made.random).next() for _ in range(200))
    gaps = [b - a for a, b in itertools.pairwise(waits)]
    assert waits[0] < 4
    assert waits[-1] > 60
    assert max(gaps) < 4
    assert 0 <= spread(30, fraction=made.random) < 30
