"""gRPC, the small model: ours beside MLServer's, the same prebuilt request with raw contents from h2load."""

from contextlib import ExitStack
from functools import partial

import grpc as grpcio

from benchmarks.figures import Report
from benchmarks.server import models, wire
from benchmarks.server.kinds import NAME, PEERS, SPREAD
from benchmarks.server.load import ONE, TWO, Cores, grpc_closed_loop, state
from benchmarks.server.rounds import Pace, median_ratio, rates, side_by_side
from benchmarks.server.served import Served, check, serve

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def grpc(report: Report, pace: Pace) -> None:
    """Measure on one core and on two."""
    for cores in (ONE, TWO):
        _grpc(report, pace, cores)


def call(server: Served, model: models.BenchModel) -> int:
    """Ask once by Google's own client and check the answer; return its message's length.

    Raises:
        AssertionError: an error, or a wrong answer.
    """
    with grpcio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        try:
            answer: bytes = channel.unary_unary(METHOD)(wire.as_grpc(NAME, model.inputs), timeout=30)
        except grpcio.RpcError as error:
            raise AssertionError(f"gRPC: expected an answer, found {error}") from error
    check(wire.from_grpc(answer), model)
    return len(answer)


def _grpc(report: Report, pace: Pace, cores: Cores) -> None:
    model = models.mlp()
    message = wire.as_grpc(NAME, model.inputs)
    ratios: dict[int, float] = {}
    kinds = {"ours": SPREAD, "mlserver": PEERS["mlserver"]}

    with ExitStack() as up:
        loads = {}
        for name, kind in kinds.items():
            server = up.enter_context(serve(kind, model, cores))
            length = call(server, model)
            loads[name] = partial(grpc_closed_loop, server.pid, server.grpc_port, message, length, cores)
        found = side_by_side(loads, pace)
    for connections, rounds in found.items():
        for name, measured in rounds.items():
            state(report, f"grpc_{cores.name}_{connections}_connections_{name}", measured)
        ratios[connections] = median_ratio(rates(rounds["ours"]), rates(rounds["mlserver"]))
    report.notes[f"grpc_{cores.name}_ratios"] = ratios
    report.notes[f"grpc_{cores.name}_processes_of_ours"] = cores.workers
    report.add(f"grpc_{cores.name}_over_mlserver", min(ratios.values()), "x", ">=", 3.0)
