"""gRPC, the small model: ours beside MLServer's, the same prebuilt request with raw contents from h2load."""

from contextlib import ExitStack
from functools import partial

import grpc as grpcio

from benchmarks.figures import Report
from benchmarks.server import models, wire
from benchmarks.server.kinds import NAME, OURS, PEERS
from benchmarks.server.load import ONE, TWO, Cores, Measured, grpc_closed_loop, state
from benchmarks.server.rounds import CONNECTIONS, Pace, in_rounds, median_ratio
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
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serve(kind, model, cores))
            for name, kind in (("ours", OURS), ("mlserver", PEERS["mlserver"]))
        }
        lengths = {name: call(server, model) for name, server in servers.items()}
        for server in servers.values():
            server.freeze()

        def ask(connections: int, name: str) -> Measured:
            server = servers[name]
            with server.awake():
                return grpc_closed_loop(
                    server.pid, server.grpc_port, message, lengths[name], cores, connections, pace.seconds
                )

        for connections in CONNECTIONS:
            found = in_rounds(pace.rounds, servers, partial(ask, connections))
            for name, rounds in found.items():
                state(report, f"grpc_{cores.name}_{connections}_connections_{name}", rounds)
            ratios[connections] = median_ratio(
                *([one.rate for one in found[name]] for name in ("ours", "mlserver"))
            )
    report.notes[f"grpc_{cores.name}_ratios"] = ratios
    report.add(f"grpc_{cores.name}_over_mlserver", min(ratios.values()), "x", ">=", 3.0)
