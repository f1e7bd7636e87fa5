"""Models that compute: how much of ONNX Runtime's best throughput is left, and the tail of latencies at 70 % load.

The limit is a process that runs the session on one batch again and again, at the best of several batch sizes and ways to
share the cores. Ours has its defaults. It gets requests of one row at several connection counts, and requests that carry
the batch that is best for the limit; what counts is the best of all, and the best with one row stands beside it without a
goal: of the 100 MB stack a row costs 0.6 ms in a batch of 64, and a request of its own some 0.15 ms to read and write.

Images and the stack's rows of 512 numbers are sent as binary tensors: as JSON they would measure the parser.
"""

import statistics
import subprocess

import numpy as np

from benchmarks.figures import Report
from benchmarks.server import models, wire
from benchmarks.server.kinds import NAME, OURS, PEERS
from benchmarks.server.load import (
    ONE,
    TWO,
    Answer,
    Cores,
    Measured,
    Phase,
    WrongAnswers,
    closed_loop,
    open_loop,
    state,
)
from benchmarks.server.raw import Way, best, raw
from benchmarks.server.rounds import CONNECTIONS, Pace, in_rounds, median_ratio, rates
from benchmarks.server.served import serve
from benchmarks.server.small import check_binary
from benchmarks.server.wire import Post

BINARY = ("detector", "matmul100")
BATCH_CONNECTIONS = (2, 4)
LOAD = 0.7
TAIL_SECONDS = 10.0


def compute(report: Report, pace: Pace) -> None:
    """Measure throughput of the encoder, the CNN and the 100 MB stack."""
    missing = []
    for cores in (ONE, TWO):
        for model in (models.minilm(), models.detector(), models.matmul100()):
            try:
                _throughput(report, pace, cores, model)
            except (AssertionError, WrongAnswers, subprocess.SubprocessError) as error:
                missing.append(f"{model.name}, {cores.name}: {error}"[:300])
    assert not missing, "; ".join(missing)


def _throughput(report: Report, pace: Pace, cores: Cores, model: models.BenchModel) -> None:
    way = best(model, cores, pace.seconds / 4)
    with serve(OURS, model, cores) as server:
        if model.name in BINARY:
            check_binary(server, model)
        form = wire.as_binary if model.name in BINARY else wire.as_json
        whole = {name: np.repeat(array, way.rows, axis=0) for name, array in model.inputs.items()}
        asked = {str(connections): (form(NAME, model.inputs), connections, 1) for connections in CONNECTIONS}
        if way.rows > 1:
            for connections in BATCH_CONNECTIONS:
                asked[f"{way.rows} rows, {connections}"] = form(NAME, whole), connections, way.rows

        def rate(name: str) -> float:
            if name == "raw":
                return raw(model, cores, [way], pace.seconds)[0].rate
            post, connections, rows = asked[name]
            seconds = max(2.0, pace.seconds)
            return rows * closed_loop(server.pid, server.port, post, cores, connections, seconds).rate

        found = in_rounds(pace.rounds, ["raw", *asked], rate)
    ratios = {
        name: statistics.median(one / limit for one, limit in zip(rounds, found["raw"], strict=True))
        for name, rounds in found.items()
        if name != "raw"
    }
    report.notes[f"compute_{cores.name}_{model.name}"] = {
        "rows_a_second": {name: round(statistics.median(rounds), 2) for name, rounds in found.items()},
        "best_way_of_onnxruntime": vars(way),
        "ratios": ratios,
    }
    report.add(f"compute_{cores.name}_{model.name}_of_onnxruntime", max(ratios.values()), "x", ">=", 0.95)
    one_row = max(ratios[str(connections)] for connections in CONNECTIONS)
    report.add(f"compute_{cores.name}_{model.name}_one_row_of_onnxruntime", one_row, "x")


def encoder(report: Report, pace: Pace) -> None:
    """State how ours compares with the peers that speak the protocol where a request takes milliseconds to compute."""
    model = models.minilm()
    kinds = {"ours": OURS, **{peer: PEERS[peer] for peer in ("mlserver", "kserve", "starlette")}}

    def ask(name: str) -> Measured:
        with serve(kinds[name], model, ONE) as server:
            seconds = max(2.0, pace.seconds)
            return closed_loop(server.pid, server.port, kinds[name].post(model), ONE, 16, seconds)

    found = in_rounds(pace.rounds, kinds, ask)
    for name, rounds in found.items():
        state(report, f"encoder_one_core_16_connections_{name}", rounds)
        if name != "ours":
            ratio = median_ratio(rates(found["ours"]), rates(rounds))
            report.add(f"encoder_one_core_over_{name}", ratio, "x")


def tail(report: Report, pace: Pace) -> None:
    """Measure the encoder's latencies at 70 % of what it can do, requests at a rate of their own.

    The goal is for requests at even distances, as constant-rate generators send them. By chance (Poisson), queueing theory
    gives p99 ≈ 3.5 p50 for constant run times at this load, whatever the server: stated beside it, without a goal. So is
    what ONNX Runtime makes of requests at the same distances without a server, one by one: the machine's part in it.
    """
    model = models.minilm()
    post: Post = wire.as_json(NAME, model.inputs)
    for cores in (ONE, TWO):
        with serve(OURS, model, cores) as server:
            capacity = closed_loop(server.pid, server.port, post, cores, 16, max(2.0, pace.seconds)).rate
            paced, by_chance = (
                open_loop(server.port, post, cores, [Phase(LOAD * capacity, TAIL_SECONDS, even)], 64)
                for even in (True, False)
            )
        way = Way(threads=len(cores.server), rate=LOAD * capacity)
        limit = raw(model, cores, [way], TAIL_SECONDS)[0]
        found = {
            "": _latencies(paced),
            "_poisson": _latencies(by_chance),
            "_without_a_server": (limit.p50 / 1e6, limit.p99 / 1e6),
        }
        for how, (p50, p99) in found.items():
            goal = ("<=", 2.0) if not how else ("", None)
            report.add(f"tail_{cores.name}{how}_p99_of_p50", p99 / p50, "x", *goal)
            report.add(f"tail_{cores.name}{how}_p50", 1e3 * p50, "ms")
            report.add(f"tail_{cores.name}{how}_p99", 1e3 * p99, "ms")
        report.notes[f"tail_{cores.name}_capacity"] = round(capacity, 1)


def _latencies(answers: list[Answer]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in seconds."""
    assert answers, "expected answers, found none"
    bad = [answer for answer in answers if answer.status != 200]
    assert not bad, f"{len(bad)} of {len(answers)} requests failed at {LOAD:.0%} load: {bad[:3]}"
    took = sorted(answer.took for answer in answers)
    return took[len(took) // 2], took[int(0.99 * len(took))]
