"""Evidence: what it is worth on average, how it grows, and against which figures from elsewhere it can be checked."""

import itertools
import math
from collections.abc import Callable, Iterable

import pytest

from edgemodel.rollout.statistics import (
    difference_evidence,
    ratio_evidence,
    share_evidence,
    upper_bound,
)


def mean(evidence: Callable[[Iterable[int]], float], probability: float, length: int) -> float:
    """Return the exact mean of an e-value over all sequences of outcomes, 1 for bad."""
    total = 0.0
    for outcomes in itertools.product((0, 1), repeat=length):
        chance = math.prod(probability if bad else 1 - probability for bad in outcomes)
        total += chance * math.exp(evidence(outcomes))
    return total


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.5])
def test_at_the_limit_evidence_is_1_on_average_and_below_it_less(limit: float) -> None:
    def ratio(outcomes: Iterable[int]) -> float:
        return ratio_evidence([(bad, 1, limit) for bad in outcomes])

    def share(outcomes: Iterable[int]) -> float:
        return share_evidence([(bad, limit) for bad in outcomes])

    for evidence in (ratio, share):
        assert mean(evidence, limit, 8) == pytest.approx(1)
        assert mean(evidence, limit / 2, 8) < 1
        assert mean(evidence, min(1, limit * 2), 8) > 1


def test_what_hangs_together_in_groups_is_no_more_than_1_on_average_if_it_counts_once() -> None:
    def twins(outcomes: Iterable[int]) -> float:
        return ratio_evidence([(0.5 * 2 * bad, 0.5 * 2, 0.1) for bad in outcomes])

    def unknown(outcomes: Iterable[int]) -> float:
        # Pairs of which the second is the opposite of the first as often as it can be.
        return ratio_evidence([(0.5 * (bad + (1 - bad) / 9), 1, 0.1) for bad in outcomes])

    assert mean(twins, 0.1, 6) == pytest.approx(1)
    assert mean(unknown, 0.1, 6) < 1


def test_two_that_are_alike_give_evidence_of_no_more_than_1_whatever_their_ratio_is() -> None:
    for probability in (0.05, 0.5, 0.9):
        total = 0.0
        for outcomes in itertools.product((0, 1), repeat=8):
            chance = math.prod(probability if bad else 1 - probability for bad in outcomes)
            mine, theirs = outcomes[:3], outcomes[3:]
            total += chance * math.exp(difference_evidence([(sum(mine), 3, sum(theirs), 5)]))
        assert total <= 1 + 1e-9


def test_a_bad_time_of_both_is_no_evidence_and_a_bad_time_of_one_is() -> None:
    both = difference_evidence([(0, 100, 0, 900)] * 20 + [(50, 100, 450, 900)] * 5)
    assert both < 0
    assert difference_evidence([(0, 100, 0, 900)] * 20 + [(5, 100, 0, 900)] * 2) > math.log(1000)
    assert difference_evidence([(0, 100, 50, 900)] * 5) < 0


def test_nothing_seen_is_no_evidence() -> None:
    assert ratio_evidence([]) == share_evidence([]) == difference_evidence([]) == 0
    assert ratio_evidence([(0, 0, 0.01)]) == 0
    assert difference_evidence([(3, 3, 0, 0), (0, 0, 5, 5), (0, 10, 0, 10)]) == 0


def test_a_limit_of_0_allows_none_and_a_limit_of_1_all() -> None:
    assert ratio_evidence([(1, 1, 0.0)]) > math.log(10_000)
    assert ratio_evidence([(0, 10_000, 0.0)]) < 1
    assert ratio_evidence([(1000, 1000, 1.0)]) == 0
    assert share_evidence([(1.0, 1.0)] * 50) == pytest.approx(0)


def test_an_upper_bound_holds_the_truth_in_all_looks_together() -> None:
    """Over all sequences of 12: the chance that the bound is ever below the true probability."""
    length, alpha = 12, 0.1
    bounds = {
        (bad, total): upper_bound(bad, total, alpha)
        for total in range(1, length + 1)
        for bad in range(total + 1)
    }
    for truth in (0.2, 0.5):
        ever = 0.0
        for outcomes in itertools.product((0, 1), repeat=length):
            chance = math.prod(truth if bad else 1 - truth for bad in outcomes)
            looks = enumerate(itertools.accumulate(outcomes), start=1)
            ever += chance * any(bounds[bad, total] < truth for total, bad in looks)
        assert ever <= alpha


def test_an_upper_bound_comes_down_to_the_truth() -> None:
    assert upper_bound(0, 0, 0.01) == 1
    assert upper_bound(5, 5, 0.01) == pytest.approx(1)
    bounds = [upper_bound(total / 100, total, 0.001) for total in (100, 1_000, 10_000, 100_000)]
    assert bounds == sorted(bounds, reverse=True)
    assert 0.01 < bounds[-1] < 0.012
    # Robbins' bound is wider than one for a single look: 1 - 0.001 ** (1 / 1000) = 0.0069 for 0 of 1,000.
    assert 0.0069 < upper_bound(0, 1000, 0.001) < 0.012
