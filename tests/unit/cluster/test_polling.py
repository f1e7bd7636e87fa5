"""When an image is looked at again."""

import pytest

from edgemodel.cluster.polling import Polling


def polling(spread: float = 0.0) -> Polling:
    return Polling(spread=lambda: spread)


def test_what_was_never_looked_at_is_due() -> None:
    assert polling().due < 0


@pytest.mark.parametrize(("spread", "due"), [(0.0, 400.0), (1.0, 430.0), (-1.0, 370.0)])
def test_a_tag_is_polled_at_its_interval_spread_by_a_tenth(spread: float, due: float) -> None:
    one = polling(spread)
    one.found(100.0, "a", 300.0)
    one.judged("a", refused=False)
    assert one.due == pytest.approx(due)


def test_an_accepted_image_that_cannot_move_is_never_due() -> None:
    one = polling()
    one.found(100.0, "a", 0.0)
    one.judged("a", refused=False)
    assert one.due == float("inf")


def test_a_refused_artifact_is_looked_at_soon_then_ever_later_up_to_the_interval() -> None:
    one = polling()
    waits, now = [], 0.0
    for _ in range(7):
        one.found(now, "a", 300.0)
        for _ in range(3):
            one.judged("a", refused=True)
        waits.append(one.due - now)
        now = one.due
    assert waits == [15, 30, 60, 120, 240, 300, 300]


def test_a_refused_artifact_of_a_tag_that_is_not_polled_is_still_looked_at() -> None:
    one = polling()
    one.found(0.0, "a", 0.0)
    one.judged("a", refused=True)
    assert one.due == 15
    one.found(15.0, "a", 0.0)
    one.judged("a", refused=False)
    assert one.due == float("inf")


def test_no_look_after_a_refusal_is_further_away_than_the_interval() -> None:
    one = polling()
    one.found(0.0, "a", 5.0)
    one.judged("a", refused=True)
    assert one.due == 5


def test_another_refused_artifact_starts_from_the_beginning() -> None:
    one = polling()
    for now, digest in ((0.0, "a"), (15.0, "a"), (45.0, "b")):
        one.found(now, digest, 300.0)
        one.judged(digest, refused=True)
    assert one.due == 60


def test_failures_double_the_wait_up_to_five_minutes_and_success_forgets_them() -> None:
    one = polling()
    waits = []
    for _ in range(9):
        one.failed(0.0)
        waits.append(one.due)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    one.found(0.0, "a", 600.0)
    one.failed(0.0)
    assert one.due == 5


def test_a_registrys_own_wish_is_kept_when_it_is_longer() -> None:
    one = polling(-1.0)
    one.failed(0.0, 120.0)
    assert one.due == 120
    one.failed(0.0, 1e9)
    assert one.due == 3600


def test_a_judgement_while_the_registry_fails_brings_no_look_forward() -> None:
    one = polling()
    one.found(0.0, "a", 300.0)
    one.judged("a", refused=True)
    one.failed(15.0, 200.0)
    one.judged("a", refused=True)
    assert one.due == 215
    one.judged("a", refused=False)
    assert one.due == 215
