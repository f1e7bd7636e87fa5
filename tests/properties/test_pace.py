"""Whatever response times are: no pod is lost, and those that are alike are left alone."""

import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from edgemodel.gateway.pace import FULL, SAMPLES, mean_between
from tests.simulators.response_times import Model, Told


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=700),
    st.lists(st.integers(0, 300), min_size=1, max_size=700),
)
def test_the_mean_lies_between_its_bounds(before: list[int], after: list[int]) -> None:
    one = Told("pod")
    for value in before:
        one.answer(value)
    first = (one.answers, one.seen.mean_ms)
    for value in after:
        one.answer(value)
    low, high = mean_between(first, (one.answers, one.seen.mean_ms))
    if one.answers <= SAMPLES:  # then HAProxy's mean is a plain one
        assert low - 1e-6 <= sum(after) / len(after) <= high + 1e-6
    assert 0 <= low <= high


_LOOKS = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.integers(0, 60), st.integers(0, 500), st.integers(0, 40)), min_size=4, max_size=4
        ),
        st.integers(0, 20),
        st.integers(1, 4),
    ),
    max_size=60,
)


@given(_LOOKS)
def test_whatever_happens_half_of_the_pods_have_their_whole_weight(
    looks: list[tuple[list[tuple[int, int, int]], int, int]],
) -> None:
    of = Model([Told(f"pod-{number}") for number in range(4)])
    everybody = of.servers
    for pods, waiting, up in looks:
        of.servers = everybody[:up]
        for server, (count, milliseconds, inflight) in zip(of.servers, pods, strict=False):
            for _ in range(count):
                server.answer(milliseconds)
            server.inflight = inflight
        turn = of.look(waiting=waiting)
        whole = [weight for weight in turn.weights.values() if weight == FULL]
        assert turn.weights.keys() == {server.name for server in of.servers}
        assert 2 * len(whole) >= up
        assert all(0 <= weight <= FULL for weight in turn.weights.values())
        if len(whole) == 1:
            assert min(turn.weights.values()) > 0  # the only quick one may die before the next look


def test_pods_that_are_alike_are_left_alone_whatever_their_times() -> None:
    draw = random.Random(7)
    kinds: tuple[Callable[[], float], ...] = (
        lambda: draw.expovariate(1 / 20),
        lambda: draw.lognormvariate(2, 1),
        lambda: 100.0 if draw.random() < 0.1 else 4.0,
    )
    for times in kinds:
        of, held = Model([Told(f"pod-{number}") for number in range(3)]), 0
        for _ in range(2000):
            for server in of.servers:
                for _ in range(draw.randrange(30) if server.weight == FULL else 0):
                    server.answer(times())
            held += min(of.look().weights.values()) < FULL
        assert held == 0
