"""A version that is no worse is not taken back, however often one looks; one that is worse is, and soon.

A thousand rollouts of a version against itself, judged every second, on sites of very different traffic. All random numbers
come of fixed seeds, so that a failure can be looked at.
"""

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel.rollout.evidence import Ledger, Sample, difference
from edgemodel.rollout.gate import GateLimits, GateResult, judge, overall
from edgemodel.rollout.server_metrics import NotMetrics, read_sample
from tests.simulators.traffic import ALIKE, CANARY, START, SURGE, Site, Version, alike, rollout

GOOD = Version()


def failed(
    site: Site, candidate: Version, seed: str, steps: tuple[tuple[int, int], ...]
) -> tuple[int, list[GateResult]] | None:
    """Return the second in which a rollout was taken back, and by what; None if it was not."""
    limits = GateLimits(steps=len(steps))
    for second, (_, evidence) in enumerate(rollout(site, candidate, seed, steps=steps), start=1):
        results = judge(limits, evidence.candidate, evidence.active)
        if overall(results) == "Fail":
            return second, [result for result in results if result.result == "Fail"]
    return None


@pytest.mark.timeout(600)
def test_of_a_thousand_rollouts_of_an_identical_version_none_is_taken_back() -> None:
    taken_back = []
    for number in range(ALIKE):
        site, steps = alike(number)
        found = failed(site, site.like, f"alike {number}", steps)
        if found is not None:
            taken_back.append((number, site.name, found))
    assert taken_back == []


@pytest.mark.parametrize(
    ("candidate", "rate", "steps", "within"),
    [
        (replace(GOOD, errors=0.05), 500, ((50, 10),), 3),
        (replace(GOOD, errors=0.05), 500, SURGE, 3),
        (replace(GOOD, errors=0.05), 500, ((10, 20),), 10),
        (replace(GOOD, errors=1.0), 20, SURGE, 1),
        (GOOD.times(5), 500, ((10, 10),), 4),
        (GOOD.times(5), 500, SURGE, 15),
        (GOOD.times(5), 50, ((50, 20),), 10),
        (GOOD.times(3), 100, ((50, 20),), 10),
    ],
)
def test_a_worse_version_is_found(
    candidate: Version, rate: float, steps: tuple[tuple[int, int], ...], within: int
) -> None:
    for number in range(10):
        found = failed(Site("any", rate=rate), candidate, f"worse {number}", steps)
        assert found is not None, number
        assert found[0] <= within, (number, found)


def test_a_version_that_is_slower_by_less_than_is_allowed_is_not_taken_back() -> None:
    for number in range(10):
        assert failed(Site("any", rate=100), GOOD.times(1.2), f"slower {number}", CANARY) is None


LINE = st.one_of(
    st.builds(
        "{}{}{}}} {}".format,
        st.sampled_from(
            [
                "inference_requests_total{",
                "inference_request_duration_seconds_bucket{",
                "inference_request_duration_seconds_count{",
                "process_start_time_seconds{",
            ]
        ),
        st.text(string.printable, max_size=30),
        st.sampled_from(['model="m",version="1"', 'model="m",version="1",le="0.5"', 'le="x"', ""]),
        st.one_of(st.integers().map(str), st.floats().map(str), st.text(max_size=5)),
    ),
    st.text(max_size=60),
)


@given(st.lists(LINE, max_size=20))
def test_whatever_a_pod_writes_is_read_or_refused(lines: list[str]) -> None:
    try:
        sample = read_sample("inference_requests\n" + "\n".join(lines), "m", "1")
    except NotMetrics:
        return
    assert 0 <= sample.errors <= sample.requests
    assert list(sample.bounds) == sorted(set(sample.bounds))
    assert list(sample.below) == sorted(sample.below)
    assert all(0 <= below <= sample.timed for below in sample.below)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    bounds = draw(st.sampled_from([(), (0.1,), (0.1, 0.5), (0.2, 0.5, 1.0)]))
    below = tuple(sorted(draw(st.lists(st.integers(0, 50), min_size=len(bounds), max_size=len(bounds)))))
    timed = draw(st.integers(below[-1] if below else 0, 60))
    requests = draw(st.integers(0, 60))
    return Sample(
        requests,
        draw(st.integers(0, requests)),
        timed,
        bounds,
        below,
        draw(st.sampled_from([None, 1.0, 2.0])),
    )


@given(samples(), samples())
def test_a_difference_is_never_negative_and_never_more_than_the_later_reading(
    one: Sample, two: Sample
) -> None:
    counts = difference(one, two)
    assert 0 <= counts.requests <= two.requests
    assert 0 <= counts.errors <= min(two.errors, counts.requests)
    assert 0 <= counts.timed <= two.timed
    assert counts.bounds == two.bounds
    assert all(0 <= below <= later for below, later in zip(counts.below, two.below, strict=True))
    assert list(counts.below) == sorted(counts.below)
    assert all(below <= counts.timed for below in counts.below)
    assert all(0 <= counts.slower(bound) <= 1 for bound in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0))


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abc"), st.none() | samples(), max_size=3),
            st.dictionaries(st.sampled_from("xyz"), st.none() | samples(), max_size=3),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.sampled_from([0, 10, 100]),
)
def test_whatever_pods_tell_in_whatever_order_there_is_a_verdict(
    rounds: list[tuple[dict[str, Sample | None], dict[str, Sample | None], bool]], weight: int
) -> None:
    ledger = Ledger("sha256:c")
    limits = GateLimits(min_requests=5, max_latency_p99=0.2)
    for number, (candidate, active, begins) in enumerate(rounds):
        ledger.begin(number if begins else 0, weight, START)
        ledger.add({"candidate": candidate, "active": active}, 1.0)
        found = ledger.evidence()
        assert found.active is None or len(found.active.rounds) == len(found.candidate.rounds)
        for result in judge(limits, found.candidate, found.active):
            assert result.result in ("Pass", "Fail", "Inconclusive")
            assert (
                result.result != "Pass" or result.name == "restarts" or result.samples >= limits.min_requests
            )
