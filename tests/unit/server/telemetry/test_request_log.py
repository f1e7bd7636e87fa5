"""Which requests are told of, what a line holds, and what a slow reader costs."""

import json
import select
import threading

import pytest

from inference_server.telemetry.metrics import Metrics
from inference_server.telemetry.request_log import ERRORS_PER_SECOND, RequestLog, encode
from inference_server.telemetry.request_record import RequestRecord as Line

LINE = Line("detector", "3", "http", "", "200", 0.0123456)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Pipe:
    """A reader that can be slow, take little at a time, or be gone."""

    def __init__(self):
        self.read = b""
        self.pieces = []
        self.reading = threading.Event()
        self.reading.set()
        self.at_a_time = 1 << 20
        self.asked = threading.Event()
        self.gone = False

    def write(self, data):
        self.asked.set()
        assert self.reading.wait(5)
        if self.gone:
            raise BrokenPipeError
        taken = data[: self.at_a_time]
        self.read += taken
        self.pieces.append(taken)
        return len(taken)


@pytest.fixture
def pipe():
    return Pipe()


def log(share, pipe, *, chance=0.5, clock=None, processes=1):
    metrics = Metrics()
    made = RequestLog(share, metrics, pipe.write, lambda: chance, clock or Clock(), processes)
    made.dropped = lambda: metrics.registry.get_sample_value("inference_request_log_dropped_total")
    return made


@pytest.mark.parametrize(
    ("share", "chance", "code", "wanted"),
    [
        (0.01, 0.0099, "200", True),
        (0.01, 0.01, "200", False),
        (1.0, 0.999, "200", True),
        (0.0, 0.0, "200", False),
        (0.0, 0.9, "500", True),
        (0.0, 0.9, "504", True),
        (0.0, 0.9, "400", False),  # the client's own fault, and a client may make many
        (0.0, 0.9, "499", False),
    ],
)
def test_which_requests_are_logged(pipe, share, chance, code, wanted):
    made = log(share, pipe, chance=chance)
    assert made.wants(code) is wanted
    made.close()


def test_a_storm_of_errors_is_bounded_and_the_bound_recovers(pipe):
    clock = Clock()
    made = log(0.0, pipe, chance=0.9, clock=clock)
    assert sum(made.wants("500") for _ in range(100)) == ERRORS_PER_SECOND
    clock.now += 0.5
    assert sum(made.wants("500") for _ in range(100)) == ERRORS_PER_SECOND / 2
    clock.now += 3600
    assert sum(made.wants("500") for _ in range(100)) == ERRORS_PER_SECOND
    made.close()


def test_a_line_holds_what_happened():
    full = Line(
        "detector",
        "3",
        "grpc",
        "17",
        "200",
        0.25,
        0.0,
        0.125,
        0.0625,
        8,
        1024,
        40,
        trace="ab" * 16,
        cache="miss",
    )
    assert json.loads(encode(full, 1.5)) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "event": "request",
        "model": "detector",
        "version": "3",
        "protocol": "grpc",
        "code": "200",
        "total_ms": 250.0,
        "queue_ms": 125.0,
        "compute_ms": 62.5,
        "batch_rows": 8,
        "bytes_in": 1024,
        "bytes_out": 40,
        "id": "17",
        "trace_id": "ab" * 16,
        "cache": "miss",
    }


def test_what_did_not_happen_is_left_out():
    assert set(json.loads(encode(LINE, 0))) == {
        "time", "event", "model", "version", "protocol", "code", "total_ms",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["\n{}\n", "x" * 10_000, "\ud800", "\x00\x1b[2J"])
def test_what_a_client_made_up_stays_one_short_line(name):
    line = encode(Line(name, "", "http", name, "404", 0.0), 0)
    assert line.count(b"\n") == 1
    assert len(line) < 1200
    assert json.loads(line)["code"] == "404"


def test_lines_arrive_whole_and_in_order_through_a_pipe_that_takes_little(pipe):
    pipe.at_a_time = 7
    made = log(1.0, pipe)
    for number in range(20):
        made.put(Line("m", "1", "http", str(number), "200", 0.0))
    made.close(5)
    assert [json.loads(line)["id"] for line in pipe.read.splitlines()] == [str(n) for n in range(20)]
    assert made.dropped() == 0


def test_lines_of_several_processes_do_not_mix_and_failed_ones_are_bounded_together(pipe):
    pipe.reading.clear()
    made = log(1.0, pipe, processes=4)
    for number in range(200):
        made.put(Line("m", "1", "http", str(number), "200", 0.0))
    pipe.reading.set()
    made.close(5)
    assert len(pipe.read.splitlines()) == 200
    assert len(pipe.pieces) > 1
    assert all(piece.endswith(b"\n") and len(piece) <= select.PIPE_BUF for piece in pipe.pieces)
    made = log(0.0, pipe, processes=4)
    assert sum(made.wants("500") for _ in range(100)) == ERRORS_PER_SECOND // 4
    made.close()


def test_a_slow_reader_costs_lines_and_never_time(pipe):
    pipe.reading.clear()
    made = log(1.0, pipe)
    made.put(LINE)
    assert pipe.asked.wait(5)  # the writer stands; nobody else does
    for _ in range(5000):
        made.put(LINE)
    assert made.dropped() == 5000 - 2048
    pipe.reading.set()
    made.close(5)
    assert pipe.read.count(b"\n") == 2049


def test_a_reader_that_is_gone_is_counted_and_harms_nothing(pipe):
    pipe.gone = True
    made = log(1.0, pipe)
    for _ in range(3):
        made.put(LINE)
    made.close(5)
    assert made.dropped() == 3
