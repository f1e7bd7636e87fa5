"""Percentiles are what sorting would give, within a hundredth, and never below it."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel.loadtest.histogram import Histogram


def filled(values):
    found = Histogram()
    for value in values:
        found.add(value)
    return found


def exact(values, share):
    return sorted(values)[max(1, math.ceil(round(share * len(values), 6))) - 1]


@given(
    values=st.lists(st.floats(0, 10_000), min_size=1, max_size=300),
    share=st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]) | st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_a_percentile_is_what_sorting_gives(values, share):
    found, wanted = filled(values).percentile(share), exact(values, share)
    assert wanted - 1e-9 <= found <= wanted * (1 + 1 / 128) + 1e-9


def test_the_largest_the_mean_and_the_count_are_exact():
    found = filled([0.001, 0.002, 0.123456789])
    assert (found.count, found.largest) == (3, 0.123456789)
    assert found.mean == pytest.approx(0.042152263)
    assert found.percentile(1) == 0.123456789


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 0.050), (0.9, 0.090), (0.99, 0.099), (0.999, 0.100)])
def test_a_share_of_a_hundred_values_counts_in_whole_ones(share, wanted):
    found = filled(number / 1000 for number in range(1, 101))
    assert found.percentile(share) == pytest.approx(wanted, rel=0.008)


def test_memory_follows_the_spread_of_values_and_not_their_number():
    draw = random.Random(1)
    found = filled(draw.lognormvariate(-6, 1) for _ in range(100_000))
    assert len(list(found.buckets())) < 2000
    assert sum(count for _, count in found.buckets()) == 100_000


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_there_is_no_such_share(share):
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        filled([1]).percentile(share)


def test_nothing_has_no_percentile():
    with pytest.raises(ValueError, match="expected values"):
        Histogram().percentile(0.5)
    assert Histogram().spread(5) == []


@given(values=st.lists(st.floats(0, 100), min_size=1, max_size=100), rows=st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_ranges_hold_every_value_once_and_follow_each_other(values, rows):
    spread = filled(values).spread(rows)
    assert 1 <= len(spread) <= rows
    assert sum(count for _, _, count in spread) == len(values)
    assert spread[-1][1] == max(values)
    assert all(one[1] == pytest.approx(other[0]) for one, other in itertools.pairwise(spread))
