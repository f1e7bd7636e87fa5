"""What a run costs, learned from calibration and from runs."""

import pytest

from inference_server.serving.costs import Costs

POINTS = ((10, 1.0), (20, 1.5), (40, 3.5))


@pytest.mark.parametrize(
    ("elements", "seconds"),
    [(1, 1.0), (10, 1.0), (15, 1.25), (20, 1.5), (30, 2.5), (40, 3.5), (60, 5.5)],
)
def test_between_measured_points_lies_a_line_and_beyond_them_goes_the_last_one_on(elements, seconds):
    assert Costs(POINTS).seconds(elements) == pytest.approx(seconds)


def test_nothing_is_known_before_anything_was_measured():
    costs = Costs()
    assert costs.seconds(5) == 0
    costs.observe(5, 0.1)
    assert costs.seconds(5) == pytest.approx(0.1)
    assert costs.seconds(50) == pytest.approx(1.0)


def test_a_machine_that_gets_slower_is_followed():
    costs = Costs(POINTS)
    for _ in range(30):
        costs.observe(20, 4.5)
    assert costs.seconds(20) == pytest.approx(4.5, rel=0.1)
    assert costs.seconds(40) == pytest.approx(10.5, rel=0.1)


def test_one_outlier_changes_little():
    costs = Costs(POINTS)
    costs.observe(20, 1000)
    assert costs.seconds(20) < 2


def test_a_size_far_from_all_known_ones_is_learned_by_itself():
    costs = Costs(POINTS)
    costs.observe(1000, 5.0)
    assert costs.seconds(1000) == pytest.approx(5.0)
    assert costs.seconds(20) == pytest.approx(1.5)


def test_what_gets_cheaper_with_size_never_becomes_negative():
    assert Costs(((10, 2.0), (20, 1.0))).seconds(100) >= 0
