"""Slow pods are found, spared, tried again and given back what they had; pods that are alike are left alone."""

from collections.abc import Callable

import pytest

from edgemodel.gateway.pace import FULL, mean_between
from tests.simulators.response_times import Model, Told


def model(count: int = 3) -> Model:
    return Model([Told(f"pod-{number}") for number in range(count)])


def serve(of: Model, milliseconds: Callable[[int], float], each: int = 20) -> None:
    """Answer that many requests at each server that gets any; one of little weight gets one."""
    for number, server in enumerate(of.servers):
        for _ in range(each if server.weight == FULL else min(1, server.weight)):
            server.answer(milliseconds(number))


def slow(number: int) -> float:
    return 40.0 if number == 0 else 4.0


def weights(of: Model) -> list[int]:
    return [server.weight for server in of.servers]


def run(of: Model, milliseconds: Callable[[int], float], looks: int, each: int = 20) -> None:
    for _ in range(looks):
        serve(of, milliseconds, each)
        of.look()


def test_pods_that_are_alike_keep_their_weight() -> None:
    of = model()
    run(of, lambda _: 4.0, 100)
    assert weights(of) == [FULL] * 3


@pytest.mark.parametrize("before", [0, 100])
def test_a_slow_pod_is_found_within_seconds_and_gets_nothing(before: int) -> None:
    of = model()
    run(of, lambda _: 4.0, before)
    began = of.now
    while weights(of) == [FULL] * 3:
        run(of, slow, 1)
        assert of.now < began + 5
    assert weights(of) == [0, FULL, FULL]


def test_a_pod_that_is_a_little_slower_is_not_slow() -> None:
    of = model()
    run(of, lambda number: 9.0 if number == 0 else 4.0, 100)
    assert weights(of) == [FULL] * 3


def test_what_is_quicker_than_haproxy_can_tell_is_not_slow() -> None:
    of = model()
    run(of, lambda number: 4.0 if number == 0 else 0.2, 100)
    assert weights(of) == [FULL] * 3


def test_one_long_answer_makes_no_slow_pod() -> None:
    of = model()
    run(of, lambda _: 4.0, 20)
    of.servers[0].answer(2000)
    run(of, lambda _: 4.0, 20)
    assert weights(of) == [FULL] * 3


def test_of_a_hundred_requests_less_than_one_goes_to_a_slow_pod() -> None:
    of = model()
    run(of, slow, 12)
    before = [server.answers for server in of.servers]
    run(of, slow, 400)
    taken, *others = (server.answers - had for server, had in zip(of.servers, before, strict=True))
    assert 0 < taken < 0.01 * (taken + sum(others))


def test_a_pod_that_is_quick_again_has_its_weight_within_ten_seconds() -> None:
    of = model()
    run(of, slow, 40)
    assert weights(of)[0] != FULL
    began = of.now
    while weights(of)[0] != FULL:
        run(of, lambda _: 4.0, 1)
        assert of.now < began + 10
    run(of, lambda _: 4.0, 100)
    assert weights(of) == [FULL] * 3  # what it answered when it was slow is forgotten


def test_with_few_requests_a_slow_pod_is_tried_once_a_minute() -> None:
    of = model()
    run(of, slow, 12)
    run(of, slow, 20, each=0)
    before, began = of.servers[0].answers, of.now
    run(of, slow, 600, each=1)
    minutes = (of.now - began) / 60
    assert 1 <= of.servers[0].answers - before <= minutes + 1


def test_a_slow_pod_helps_while_the_others_are_full() -> None:
    of = model()
    run(of, slow, 12)
    for server in of.servers[1:]:
        server.inflight = 20
    run(of, slow, 6)
    assert weights(of) == [1, FULL, FULL]
    for server in of.servers[1:]:
        server.inflight = 0
    run(of, slow, 10)
    assert weights(of)[0] == 0


def test_a_slow_pod_helps_before_a_request_is_refused() -> None:
    of = model()
    run(of, slow, 12)
    of.look(waiting=3, limit=6)
    assert weights(of) == [1, FULL, FULL]


def test_the_weight_falls_with_the_square_of_slowness() -> None:
    of = model(2)
    run(of, lambda number: 160.0 if number == 0 else 40.0, 12)
    assert weights(of) == [FULL // 16, FULL]


def test_where_one_other_is_left_a_slow_pod_goes_on() -> None:
    of = model()
    run(of, slow, 12)
    of.servers.pop()
    run(of, slow, 1)
    assert weights(of) == [1, FULL]
    of.servers.pop()
    run(of, slow, 1)
    assert weights(of) == [FULL]


def test_a_slow_pod_helps_for_a_while_after_another_one_failed() -> None:
    of = model()
    run(of, slow, 12)
    of.servers[1].failures += 1
    run(of, slow, 1)
    assert weights(of) == [1, FULL, FULL]
    run(of, slow, 60)
    assert weights(of)[0] == 0


def test_no_more_than_half_are_slow() -> None:
    of = model(4)
    run(of, lambda number: 4.0 if number == 0 else 40.0 * number, 40)
    assert len(of.pace.slow) <= 2
    of = model(3)
    run(of, lambda number: 4.0 if number == 0 else 40.0, 40)
    assert of.pace.slow == ()


def test_a_new_worker_takes_over_what_is_known() -> None:
    of = model()
    run(of, slow, 12)
    for server in of.servers:
        server.restart()
        server.weight = FULL
    of.look()
    assert weights(of) == [0, FULL, FULL]


def test_all_of_it_works_beyond_the_answers_that_the_mean_is_taken_of() -> None:
    of = model()
    run(of, lambda _: 4.0, 100, each=100)
    run(of, slow, 12)
    assert weights(of) == [0, FULL, FULL]
    run(of, lambda _: 4.0, 40)
    assert weights(of) == [FULL] * 3


def test_a_mean_is_told_from_two_looks() -> None:
    one = Told("pod")
    for _ in range(2000):
        one.answer(10)
    before = (one.answers, one.seen.mean_ms)
    for _ in range(200):
        one.answer(50)
    low, high = mean_between(before, (one.answers, one.seen.mean_ms))
    assert low - 3 <= 50 <= high + 3
    assert high - low < 8
