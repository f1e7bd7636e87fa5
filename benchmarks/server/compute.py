"""Models that compute: how much of ONNX Runtime's best throughput is left, and the tail of latencies at 70 % load.

The limit is a process that runs the session on one batch again and again, at the best of several batch sizes and ways to
share the cores. Ours has its defaults and gets requests of one row; what counts is its best of the connection counts.
"""

import statistics
import subprocess

from benchmarks.figures import Report
from benchmarks.server import models, wire
from benchmarks.server.kinds import NAME, OURS, PEERS
from benchmarks.server.load import (
    ONE,
    TWO,
    Cores,
    Measured,
    Phase,
    WrongAnswers,
    closed_loop,
    open_loop,
    state,
)
from benchmarks.server.raw import best, raw
from benchmarks.server.rounds import CONNECTIONS, Pace, in_rounds, median_ratio, rates
from benchmarks.server.served import serve
from benchmarks.server.small import check_binary
from benchmarks.server.wire import Post

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
        # An image as JSON numbers would measure the parser.
        large = model.name == "detector"
        if large:
            check_binary(server, model)
        post = wire.as_binary(NAME, model.inputs) if large else wire.as_json(NAME, model.inputs)

        def rate(name: str) -> float:
            if name == "raw":
                return raw(model, cores, [way], pace.seconds)[0].rate
            seconds = max(2.0, pace.seconds)
            return closed_loop(server.pid, server.port, post, cores, int(name), seconds).rate

        found = in_rounds(pace.rounds, ["raw", *map(str, CONNECTIONS)], rate)
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
    """Measure the encoder's latencies at 70 % of what it can do, requests at a rate of their own."""
    model = models.minilm()
    post: Post = wire.as_json(NAME, model.inputs)
    for cores in (ONE, TWO):
        with serve(OURS, model, cores) as server:
            capacity = closed_loop(server.pid, server.port, post, cores, 16, max(2.0, pace.seconds)).rate
            answers = open_loop(server.port, post, cores, [Phase(LOAD * capacity, TAIL_SECONDS)], 64)
        assert answers, "expected answers, found none"
        bad = [answer for answer in answers if answer.status != 200]
        assert not bad, f"{len(bad)} of {len(answers)} requests failed at {LOAD:.0%} load: {bad[:3]}"
        took = sorted(answer.took for answer in answers)
        p50, p99 = took[len(took) // 2], took[int(0.99 * len(took))]
        report.add(f"tail_{cores.name}_p99_of_p50", p99 / p50, "x", "<=", 2)
        report.add(f"tail_{cores.name}_p50", 1e3 * p50, "ms")
        report.add(f"tail_{cores.name}_p99", 1e3 * p99, "ms")
        report.notes[f"tail_{cores.name}_capacity"] = round(capacity, 1)
