"""The small model: JSON beside all peers, binary beside our own JSON, and what a request adds to ONNX Runtime's run.

A ratio is the median of the rounds' ratios, and the least of those at 1, 16 and 64 connections.
"""

import statistics
from contextlib import ExitStack
from functools import partial

from benchmarks.figures import Report
from benchmarks.server import models, wire
from benchmarks.server.kinds import NAME, OURS, PEERS, SPREAD, Kind
from benchmarks.server.load import ONE, TWO, Cores, Measured, closed_loop, state
from benchmarks.server.raw import Way, raw
from benchmarks.server.rounds import (
    CONNECTIONS,
    SLICE_SECONDS,
    Pace,
    in_rounds,
    median_ratio,
    rates,
    side_by_side,
)
from benchmarks.server.served import Served, check, exchange, serve

GOALS = {"mlserver": 5.0, "kserve": 7.0, "starlette": 1.5, "litserve": 3.0, "bentoml": 3.0}


def json(report: Report, pace: Pace) -> None:
    """Measure JSON: ours and the peers, on one core and on two; there by two processes, as the peers that take workers."""
    for cores in (ONE, TWO):
        _json(report, pace, cores)


def _json(report: Report, pace: Pace, cores: Cores) -> None:
    model = models.mlp()
    kinds: dict[str, Kind] = {"ours": SPREAD, **PEERS}
    ratios: dict[str, dict[int, float]] = {peer: {} for peer in PEERS}
    cheaper: dict[str, dict[int, float]] = {peer: {} for peer in PEERS}

    with ExitStack() as up:
        loads = {}
        for name, kind in kinds.items():
            server = up.enter_context(serve(kind, model, cores))
            loads[name] = partial(closed_loop, server.pid, server.port, kind.post(model), cores)
        found = side_by_side(loads, pace)
    for connections, rounds in found.items():
        for name, measured in rounds.items():
            state(report, f"json_{cores.name}_{connections}_connections_{name}", measured)
        ours = rounds["ours"]
        for peer in PEERS:
            ratios[peer][connections] = median_ratio(rates(ours), rates(rounds[peer]))
            cheaper[peer][connections] = median_ratio(
                [one.cpu for one in rounds[peer]], [one.cpu for one in ours]
            )
    report.notes[f"json_{cores.name}_ratios"] = ratios
    report.notes[f"json_{cores.name}_processes_of_ours"] = cores.workers
    for peer, by_count in ratios.items():
        report.add(f"json_{cores.name}_over_{peer}", min(by_count.values()), "x", ">=", GOALS[peer])
        report.add(f"json_{cores.name}_processor_time_of_{peer}_over_ours", min(cheaper[peer].values()), "x")


def binary(report: Report, pace: Pace) -> None:
    """Measure binary tensors beside JSON, the small model, one core."""
    model = models.mlp()
    posts = {"json": wire.as_json(NAME, model.inputs), "binary": wire.as_binary(NAME, model.inputs)}
    ratios = []
    with serve(OURS, model, ONE) as server:
        check_binary(server, model)

        def ask(connections: int, form: str) -> Measured:
            return closed_loop(server.pid, server.port, posts[form], ONE, connections, SLICE_SECONDS)

        for connections in CONNECTIONS:
            found = in_rounds(pace.slices, posts, partial(ask, connections))
            for name, rounds in found.items():
                state(report, f"binary_one_core_{connections}_connections_{name}", rounds)
            ratios.append(median_ratio(rates(found["binary"]), rates(found["json"])))
    report.notes["binary_ratios"] = ratios
    report.add("binary_over_json", min(ratios), "x", ">=", 1.3)


def check_binary(server: Served, model: models.BenchModel) -> None:
    """Ask once with binary tensors.

    Raises:
        AssertionError: the answer is none, or not ONNX Runtime's.
    """
    status, headers, body = exchange(server.port, wire.as_binary(NAME, model.inputs))
    assert status == 200, f"binary tensors: expected 200, found {status}: {body[:300]!r}"
    assert wire.HEADER_LENGTH.lower() in headers, f"expected a binary answer, found headers {headers}"
    check(wire.from_binary(body, headers), model)


def latency(report: Report, pace: Pace) -> None:
    """Measure what one connection waits beyond ONNX Runtime's run, JSON, server and client on a core each."""
    model = models.mlp()
    post = wire.as_json(NAME, model.inputs)
    with serve(OURS, model, ONE) as server:

        def median(name: str) -> float:
            if name == "raw":
                return raw(model, ONE, [Way()], pace.seconds)[0].p50
            return closed_loop(server.pid, server.port, post, ONE, 1, pace.seconds).p50

        found = in_rounds(max(5, pace.rounds), ["ours", "raw"], median)
    added = [a - b for a, b in zip(found["ours"], found["raw"], strict=True)]
    report.add("latency_added_p50", statistics.median(added), "µs", "<=", 150)
    report.add("latency_p50", statistics.median(found["ours"]), "µs")
    report.add("latency_raw_onnxruntime_p50", statistics.median(found["raw"]), "µs")
