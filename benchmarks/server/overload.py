"""Three times as many requests as the encoder can compute, each with a deadline: what is answered in time, and recovery.

One core for the server. Requests carry ``timeout`` (microseconds, as Triton's), come by chance (Poisson) and do not wait for
answers. Capacity is what a closed loop of 16 connections gets just before. Before and after the overload come requests at
half the capacity.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.figures import Report
from benchmarks.footprint import family
from benchmarks.memory import resident
from benchmarks.server import models, wire
from benchmarks.server.kinds import NAME, OURS
from benchmarks.server.load import ONE, Answer, Phase, closed_loop, open_loop
from benchmarks.server.rounds import Pace
from benchmarks.server.served import serve

TIMES, DEADLINE = 3.0, 0.25
CALM_SECONDS = 5.0
CONNECTIONS = 512
SLOW_TIMES = 2.0  # of the 99th percentile before: not yet recovered


def overload(report: Report, pace: Pace) -> None:
    """Measure goodput, the tail of what was accepted, memory and recovery."""
    model = models.minilm()
    post = wire.as_json(NAME, model.inputs, timeout=int(DEADLINE * 1e6))
    with serve(OURS, model, ONE) as server:
        plain = wire.as_json(NAME, model.inputs)
        capacity = closed_loop(server.pid, server.port, plain, ONE, 16, max(4.0, pace.seconds)).rate
        calm = Phase(capacity / 2, CALM_SECONDS)
        phases = [calm, Phase(TIMES * capacity, pace.overload), calm]
        with _watched(server.pid) as held:
            answers = open_loop(server.port, post, ONE, phases, CONNECTIONS)
    begin, end = CALM_SECONDS, CALM_SECONDS + pace.overload
    before = [answer.took for answer in answers if answer.due < begin and answer.status == 200]
    during = [answer for answer in answers if begin <= answer.due < end]
    after = [answer for answer in answers if answer.due >= end]
    assert before, f"expected answers at half the capacity of {capacity:.0f}/s, found none"
    accepted = sorted(answer.took for answer in during if answer.status == 200)
    in_time = [took for took in accepted if took <= DEADLINE]
    report.add("overload_goodput_of_capacity", len(in_time) / pace.overload / capacity, "x", ">=", 0.9)
    late = accepted[int(0.99 * len(accepted))] if accepted else float("inf")
    report.add("overload_accepted_p99", 1e3 * min(late, 1e3), "ms", "<=", 1e3 * DEADLINE)
    broken = sum(answer.status == 0 for answer in during)
    report.add("overload_broken_connections", broken, "requests", "<=", 0)
    report.add("overload_recovery", recovery(after, end, _p99(before)), "s", "<=", 1)
    third = len(held) // 3
    report.add("overload_memory_growth", max(held[-third:]) - max(held[:third]), "MB", "<=", 10)
    report.notes["overload"] = {
        "capacity": round(capacity, 1),
        "offered": len(during),
        "statuses": {
            str(code): sum(answer.status == code for answer in during)
            for code in sorted({answer.status for answer in during})
        },
        "p99_before_ms": round(1e3 * _p99(before), 1),
        "memory_mb": [round(held[0], 1), round(max(held), 1)],
    }


def recovery(after: list[Answer], end: float, p99: float) -> float:
    """Return the seconds after the overload until the last request that was refused, or slower than in calm."""
    return max(
        (
            answer.due - end
            for answer in after
            if answer.status != 200 or answer.took > max(SLOW_TIMES * p99, DEADLINE / 2)
        ),
        default=0.0,
    )


def _p99(took: list[float]) -> float:
    return sorted(took)[int(0.99 * len(took))]


@contextmanager
def _watched(pid: int) -> Iterator[list[float]]:
    """Write down a server's memory in MB, twice a second."""
    held = [resident(family(pid))] * 3
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            held.append(resident(family(pid)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield held
    finally:
        done.set()
        thread.join()
