"""What is counted cheaply is told as prometheus-client tells it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from inference_server.telemetry.tallies import Counts, Distributions

BOUNDS = (0.001, 0.25, 1.0, 30.0)
values = st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0, 100)), max_size=20)


def told(registry):
    # Creation times differ, and the server switches them off.
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(values)
def test_a_histogram_says_what_prometheus_clients_would(observed):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Distributions("h", "Text.", ("model",), registry=ours, buckets=BOUNDS).labels("m")
    other = Histogram("h", "Text.", ("model",), registry=theirs, buckets=BOUNDS).labels("m")
    for value in observed:
        mine.observe(value)
        other.observe(value)
    assert told(ours) == told(theirs)


@given(st.lists(st.integers(1, 5), max_size=9))
def test_a_counter_says_what_prometheus_clients_would(amounts):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Counts("c", "Text.", ("code", "model"), registry=ours).labels("200", "m")
    other = Counter("c", "Text.", ("code", "model"), registry=theirs).labels("200", "m")
    for amount in amounts:
        mine.inc(amount)
        other.inc(amount)
    assert told(ours) == told(theirs)


def test_what_was_never_counted_is_told_by_name_alone():
    registry = CollectorRegistry()
    Counts("c", "Text.", ("code",), registry=registry)
    assert [line for line in told(registry) if not line.startswith("#")] == []


def test_the_same_labels_are_the_same_child_and_a_wrong_number_of_them_is_refused():
    counts = Counts("c", "Text.", ("code", "model"), registry=CollectorRegistry())
    assert counts.labels("200", "m") is counts.labels("200", "m")
    with pytest.raises(ValueError, match="expected values of"):
        counts.labels("200")


def test_two_families_of_one_name_are_refused():
    registry = CollectorRegistry()
    Counts("c", "Text.", ("code",), registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counts("c", "Text.", ("code",), registry=registry)
