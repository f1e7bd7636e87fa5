"""Reading a server's counters: the right ones, all of them, and nothing that cannot be."""

import contextlib
import time

import pytest

from edgemodel.rollout.server_metrics import MAX_SERIES, NotMetrics, read_sample
from inference_server.telemetry.metrics import REQUEST_SECONDS, Metrics


def metrics(model: str = "detector", version: str = "1.4.0") -> Metrics:
    made = Metrics()
    for code, number in (("200", 40), ("400", 3), ("499", 2), ("500", 4), ("503", 1)):
        made.requests.labels(model, version, "http", code).inc(number)
    for seconds in (0.0004, 0.004, 0.004, 0.2, 60):
        made.request_duration.labels(model, version, "http").observe(seconds)
    made.compute_duration.labels(model, version).observe(0.5)
    return made


def read(made: Metrics, model: str = "detector", version: str = "1.4.0") -> dict[str, object]:
    sample = read_sample(made.render().decode(), model, version)
    within = dict(zip(sample.bounds, sample.below, strict=True))
    return {
        "requests": sample.requests,
        "errors": sample.errors,
        "timed": sample.timed,
        "within": [within[bound] for bound in (0.0003, 0.0004, 0.004, 0.15, 0.2, 30.0)],
        "bounds": sample.bounds,
    }


def test_the_servers_own_metrics_are_read() -> None:
    assert read(metrics()) == {
        "requests": 50,
        "errors": 5,
        "timed": 5,
        "within": [0, 1, 3, 3, 4, 4],
        "bounds": REQUEST_SECONDS,
    }
    assert read_sample(metrics().render().decode(), "detector", "1.4.0").started is not None


def test_protocols_are_added_up() -> None:
    made = metrics()
    made.requests.labels("detector", "1.4.0", "grpc", "200").inc(5)
    made.request_duration.labels("detector", "1.4.0", "grpc").observe(0.004)
    found = read(made)
    assert (found["requests"], found["timed"], found["within"]) == (55, 6, [0, 1, 4, 4, 5, 5])


def test_other_models_and_versions_do_not_count() -> None:
    made = metrics()
    made.requests.labels("detector", "1.3.0", "http", "500").inc(100)
    made.requests.labels("other", "1.4.0", "http", "500").inc(100)
    made.requests.labels("", "", "http", "404").inc(100)
    made.request_duration.labels("other", "1.4.0", "http").observe(3)
    assert read(made) == read(metrics())


def test_a_version_that_answered_nothing_yet_is_all_zero() -> None:
    sample = read_sample(Metrics().render().decode(), "detector", "1.4.0")
    assert (sample.requests, sample.errors, sample.timed, sample.bounds) == (0, 0, 0, ())


def test_labels_come_in_any_order_and_with_any_value() -> None:
    name = 'a "b" \\ {c}, d="e"\nf'
    made = Metrics()
    made.requests.labels(name, "1", "http", "200").inc(2)
    assert read_sample(made.render().decode(), name, "1").requests == 2
    text = 'inference_requests_total{ code="500",version="1",model="m"} 3 1700000000000\n'.replace("{ ", "{")
    assert read_sample(text, "m", "1").errors == 3


LINE = 'inference_requests_total{model="m",version="1",code="200"} '
BUCKET = 'inference_request_duration_seconds_bucket{model="m",version="1",le='
COUNT = 'inference_request_duration_seconds_count{model="m",version="1"} '


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<html>", "no line"),
        ("", "no line"),
        (LINE + "-1", "negative"),
        (LINE + "1.5", "negative, broken"),
        (LINE + "1e300", "too large"),
        (LINE + "1e+-3", "no number"),
        (LINE + "9e15\n" + LINE + "9e15", "more requests"),
        ('inference_requests_total{model="m",model="m"} 1', "twice"),
        ('inference_requests_total{model=m} 1', "labels"),
        (LINE + "1\n" + BUCKET + '"x"} 1', "bound is no number"),
        (LINE + "1\n" + BUCKET + '"nan"} 1', "bound is no time"),
        (LINE + "1\n" + BUCKET + '"-1"} 1', "bound is no time"),
        (LINE + "1\n" + BUCKET + '"1"} 5\n' + BUCKET + '"2"} 4\n' + COUNT + "5", "add up"),
        (LINE + "1\n" + BUCKET + '"1"} 5\n' + COUNT + "4", "add up"),
        (LINE + "1\n" + "\n".join(f'{BUCKET}"{n}"}} 0' for n in range(200)), "buckets"),
        ((LINE + "0\n") * (MAX_SERIES + 1), "more than 4096 lines"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(NotMetrics, match=says):
        read_sample(text, "m", "1")


def test_a_megabyte_made_to_be_slow_is_read_in_bounded_time() -> None:
    hostile = [
        'inference_requests_total{' * 40_000,
        ('inference_requests_total{' + 'a="\\\\' * 900 + "\n") * 250,
        'inference_requests_total{model="' + "x" * 1_000_000,
        ("inference_requests_total{" + "} 1" * 1300 + "\n") * 250,
    ]  # fmt: skip
    for text in hostile:
        began = time.process_time()
        with contextlib.suppress(NotMetrics):
            read_sample(text, "m", "1")
        assert time.process_time() - began < 1.0
